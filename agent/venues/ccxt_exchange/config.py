"""What a user writes about one exchange. It is kept apart from ccxt, which takes half a second to import: whoever only checks the
settings, or only cancels, need not wait for it.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Config(BaseModel):
    """One exchange. Numbers are limits of the exchange or of our patience; names end in their unit.

    `url` and `ws_url` move every address to another host (the sandbox). `secret` is where the secret lies (`env:NAME`, `file:PATH`,
    `keyring:NAME`), never the secret itself. `groups` says for which group each traded coin counts. `taker_fee_pips` overrides what
    the account's fee rates say.
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
    recv_window_ms: int = Field(default=5_000, ge=100, le=60_000)
    request_timeout_ms: int = Field(default=5_000, ge=100, le=60_000)
    depth_max: int = Field(default=1_000, ge=5, le=5_000)
    stale_ms: int = Field(default=10_000, ge=100, le=600_000)
    poll_ms: int = Field(default=2_000, ge=50, le=600_000)
    weight_per_minute: int = Field(default=6_000, ge=100)
    orders_per_10s: int = Field(default=100, ge=1)
    sends_in_flight_max: int = Field(default=8, ge=1, le=64)

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
        return self
