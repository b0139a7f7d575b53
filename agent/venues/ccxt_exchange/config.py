"""What a user writes about one exchange. It is kept apart from ccxt, which takes half a second to import: whoever only checks the
settings, or only cancels, need not wait for it.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Config(BaseModel):
    """One exchange. Numbers are limits of the exchange or of our patience; names end in their unit.

    `url` and `ws_url` move every address to another host (the sandbox). `secret` is where the secret lies (`env:NAME`, `file:PATH`,
    `keyring:NAME`), never the secret itself. `groups` says for which group each traded coin counts. `taker_fee_pips` and
    `maker_fee_pips` override what the account's fee rates say. A snapshot asks about at most
    `max_single_order_queries_per_cycle` orders one by one, `single_order_query_delay_ms` apart; the rest comes from lists, or next
    time. Clock, rules and state of the exchange are looked after every `clock_check_ms`. `self_trade_prevention` is what the
    exchange does when an order would trade with another of ours.

    `orders_over` is the way that orders, cancels and replacements take: `rest`, or `websocket`, which is faster and is Binance's
    alone. Everything else is asked through REST either way, and so are orders while that connection is not up.

    `dead_man_s` is how long the exchange waits for a sign of life before it cancels everything; 0 is off. Binance spot has no such
    switch at all, so it must be said which of its forms the exchange has: `dead_man_path` names that of Binance USD-M. At the real
    Binance it guards the USD-M account and not one spot order: there, leave both as they are.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["ccxt_exchange"] = "ccxt_exchange"
    exchange: str = "binance"
    url: str = ""
    ws_url: str = ""
    api_key: str = ""
    secret: str = ""
    symbols: tuple[str, ...] = Field(min_length=1, max_length=64)
    groups: dict[str, str]
    taker_fee_pips: int | None = Field(default=None, ge=0, le=100_000)
    maker_fee_pips: int | None = Field(default=None, ge=-10_000, le=100_000)
    recv_window_ms: int = Field(default=5_000, ge=100, le=60_000)
    request_timeout_ms: int = Field(default=5_000, ge=100, le=60_000)
    depth_max: int = Field(default=1_000, ge=5, le=5_000)
    stale_ms: int = Field(default=10_000, ge=100, le=600_000)
    poll_ms: int = Field(default=2_000, ge=50, le=600_000)
    weight_per_minute: int = Field(default=6_000, ge=100)
    orders_per_10s: int = Field(default=100, ge=1)
    sends_in_flight_max: int = Field(default=8, ge=1, le=64)
    max_single_order_queries_per_cycle: int = Field(default=10, ge=1, le=1_000)
    single_order_query_delay_ms: int = Field(default=100, ge=0, le=10_000)
    clock_check_ms: int = Field(default=60_000, ge=100, le=3_600_000)
    self_trade_prevention: Literal["EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH", "NONE"] = "EXPIRE_TAKER"
    orders_over: Literal["rest", "websocket"] = "rest"
    dead_man_s: int = Field(default=0, ge=0, le=3_600)
    dead_man_path: Literal["", "/fapi/v1/countdownCancelAll"] = ""

    def markets(self) -> set[str]:
        """The pairs of groups that its symbols trade."""
        pairs = (symbol.split("/") for symbol in self.symbols)
        return {f"{self.groups.get(base, base)}/{self.groups.get(quote, quote)}" for base, quote in pairs}

    @field_validator("symbols")
    @classmethod
    def _pairs(cls, symbols: tuple[str, ...]) -> tuple[str, ...]:
        for symbol in symbols:
            if symbol.count("/") != 1 or len(symbol) > 40:
                raise ValueError(f"write a symbol as BASE/QUOTE, such as ETH/USDT, not {symbol[:40]!r}")
        if len(set(symbols)) != len(symbols):
            raise ValueError("a symbol is listed twice")
        return symbols

    @field_validator("secret")
    @classmethod
    def _reference(cls, secret: str) -> str:
        if secret and ":" not in secret:
            raise ValueError("name where the secret lies, such as env:EXCHANGE_SECRET; never write the secret itself here")
        return secret

    @model_validator(mode="after")
    def _whole(self) -> "Config":
        if self.ws_url and not self.url:
            raise ValueError("ws_url without url would leave the orders at the real exchange; give both or none")
        if bool(self.api_key) != bool(self.secret):
            raise ValueError("api_key and secret belong together; give both, or none to look without trading")
        if self.orders_over == "websocket" and self.exchange != "binance":
            raise ValueError(f'orders_over = "websocket" is for binance alone; {self.exchange[:40]} takes orders through "rest"')
        if self.dead_man_s and (self.exchange != "binance" or not self.url or not self.dead_man_path):
            raise ValueError(
                "Binance spot has no dead-man switch; for an exchange like it that has one, give url and dead_man_path"
            )
        return self
