"""The exchange's own TWAP: an order that it works itself, with orders of its own that it sends over a time.

Nothing is reserved for it: each part is paid when it trades, and a part that cannot be paid, or is too small, is tried again with
the next. What is left at the end is not traded. The parts are ordinary orders with client ids of the exchange's own, in its lists
and on the private stream. Source: Binance spot algo API (`/sapi/v1/algo/spot/...`), from its documentation.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import msgspec

from agent.simulation.exchange.accounts import UNITS_PER_ASSET
from agent.simulation.exchange.filters import NewOrder, Params, Refused, decimal_units, integer, parse_size, required, symbol_rules
from agent.simulation.exchange.matching import BUY, SELL, Order

if TYPE_CHECKING:
    from agent.simulation.exchange.venue import Venue

DURATION_S: Final = (300, 86_400)
WORTH: Final = (1_000 * UNITS_PER_ASSET, 100_000 * UNITS_PER_ASSET)  # of the whole order, in quote
OPEN_MAX: Final = 20
KEPT_MAX: Final = 1_000
PART_MS: Final = 15_000
CLIENT_ID_LENGTH: Final = 32


class Algo(msgspec.Struct):
    """One TWAP. `limit_ticks` 0: at any price. `end_ms` 0: it is worked."""

    id: int
    account: str
    symbol: str
    side: int
    size_lots: int
    limit_ticks: int
    duration_ms: int
    client_id: str
    booked_ms: int
    status: str = "WORKING"
    end_ms: int = 0
    part: int = 0
    subs: list[Order] = []

    @property
    def filled_lots(self) -> int:
        return sum(order.filled_lots for order in self.subs)

    @property
    def value(self) -> int:
        """In ticks x lots."""
        return sum(order.value for order in self.subs)

    @property
    def parts(self) -> int:
        return max(1, self.duration_ms // PART_MS)


class Algos:
    """All TWAPs of the exchange. `speed`: they are worked so much faster than real ones, and end sooner."""

    def __init__(self, venue: Venue, speed: int = 1) -> None:
        self._venue, self._speed = venue, speed
        self._last_id = 0
        self._all: dict[int, Algo] = {}

    def place(self, account: str, params: Params, now_ms: int) -> Algo:
        """Check and accept one. The first part is sent with the next tick."""
        venue = self._venue
        rules = symbol_rules(params, venue.rules)
        side = {"BUY": BUY, "SELL": SELL}.get(required(params, "side"))
        if side is None:
            raise Refused(-1117, "Invalid side.")
        lots, seconds = parse_size(params, rules, "quantity"), integer(params, "duration")
        if not DURATION_S[0] <= seconds <= DURATION_S[1]:
            raise Refused(-20130, "Invalid data sent for parameter 'duration'.")
        name = params.get("clientAlgoId") or f"{self._last_id + 1:032x}"
        if len(name) != CLIENT_ID_LENGTH:
            raise Refused(-20130, "Invalid data sent for parameter 'clientAlgoId'.")
        limit = decimal_units(params, "limitPrice") if "limitPrice" in params else 0
        if limit % (rules.tick_units * rules.tick_step):
            raise Refused(-1013, "Filter failure: PRICE_FILTER")
        best = venue.markets[rules.symbol].book.best(1 - side)
        worth = rules.quote_units(best[0] * lots) if best is not None else 0
        if not WORTH[0] <= worth <= WORTH[1]:
            raise Refused(-20204, "The notional of USD is less or more than the limit.")
        if any(one.client_id == name for one in self._all.values() if one.account == account):
            raise Refused(-20132, "The client algo id is duplicated.")
        if len(self.open(account)) >= OPEN_MAX:
            raise Refused(-20198, "Reach the max open orders allowed.")
        self._last_id += 1
        algo = Algo(self._last_id, account, rules.symbol, side, lots, limit // rules.tick_units, seconds * 1_000, name, now_ms)
        self._all[algo.id] = algo
        self._forget()
        return algo

    def cancel(self, account: str, algo_id: int, now_ms: int) -> Algo:
        algo = self.find(account, algo_id)
        if algo.end_ms:
            raise Refused(-20124, "Invalid algo id or it has been completed.")
        algo.status, algo.end_ms = "CANCELLED", now_ms
        return algo

    def find(self, account: str, algo_id: int) -> Algo:
        algo = self._all.get(algo_id)
        if algo is None or algo.account != account:
            raise Refused(-20124, "Invalid algo id or it has been completed.")
        return algo

    def open(self, account: str) -> list[Algo]:
        return [one for one in self._all.values() if one.account == account and not one.end_ms]

    def ended(self, account: str) -> list[Algo]:
        """Newest first."""
        return [one for one in reversed(self._all.values()) if one.account == account and one.end_ms]

    def tick(self, now_ms: int) -> set[str]:
        """Send the parts whose time has come. The symbols that were traded."""
        return {one.symbol for one in [*self._all.values()] if not one.end_ms and self._work(one, now_ms)}

    # -- private ------------------------------------------------------------------------------------------------------

    def _work(self, algo: Algo, now_ms: int) -> bool:
        elapsed_ms = (now_ms - algo.booked_ms) * self._speed
        part = min(elapsed_ms // PART_MS + 1, algo.parts)
        is_over = elapsed_ms >= algo.duration_ms
        has_traded = False
        if part > algo.part or is_over:
            algo.part = part
            missing = algo.size_lots * part // algo.parts - algo.filled_lots
            has_traded = missing > 0 and self._send(algo, missing, now_ms)
        if algo.filled_lots == algo.size_lots or is_over:
            algo.status, algo.end_ms = ("FINISHED" if algo.filled_lots == algo.size_lots else "EXPIRED"), now_ms
        return has_traded

    def _send(self, algo: Algo, lots: int, now_ms: int) -> bool:
        """At the market, or not beyond the limit. What is refused waits for the next part."""
        request = NewOrder(
            symbol=algo.symbol, side=algo.side, kind="LIMIT" if algo.limit_ticks else "MARKET", time_in_force="IOC",
            prevention="NONE", price_ticks=algo.limit_ticks, size_lots=lots, quote_units=0,
            client_id=f"algo-{algo.id}-{len(algo.subs) + 1}", reply_kind="FULL",
        )  # fmt: skip
        with contextlib.suppress(Refused):
            if self._is_worth_it(algo, lots):
                order, _ = self._venue.place(algo.account, request, now_ms)
                algo.subs = [*algo.subs, order]
                return True
        return False

    def _is_worth_it(self, algo: Algo, lots: int) -> bool:
        rules = self._venue.rules[algo.symbol]
        best = self._venue.markets[algo.symbol].book.best(1 - algo.side)
        return best is not None and rules.quote_units(best[0] * lots) >= rules.notional_units_min

    def _forget(self) -> None:
        while len(self._all) > KEPT_MAX:
            oldest = next((one.id for one in self._all.values() if one.end_ms), None)
            if oldest is None:
                return
            del self._all[oldest]
