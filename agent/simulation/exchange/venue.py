"""The exchange without its wires: symbols, books, accounts and orders, from a checked request to trades and account events.

Everything is synchronous and deterministic: time comes in as `now_ms`, what happened goes out through two listeners. The house
account is the background liquidity: it trades like anybody else, but holds no reservations and hears no events.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from agent.simulation.exchange.accounts import HOUSE, Accounts, Transfer
from agent.simulation.exchange.algos import Algos
from agent.simulation.exchange.filters import NewOrder, Refused, SymbolRules, check_notional
from agent.simulation.exchange.history import Candles
from agent.simulation.exchange.matching import BUY, SELL, Book, Kind, Match, Order, Status, TimeInForce

Execution = Literal["NEW", "TRADE", "CANCELED", "EXPIRED", "TRADE_PREVENTION", "REPLACED", "TRADE_CANCEL"]

TRADES_MAX = 10_000
ORDERS_MAX = 50_000
_OPEN = ("NEW", "PARTIALLY_FILLED")


class Trade(msgspec.Struct, frozen=True, gc=False):
    """A public print. `aggregate_id` joins the prints of one taker at one price."""

    id: int
    aggregate_id: int
    price_ticks: int
    size_lots: int
    is_buyer_maker: bool
    time_ms: int


class Fill(msgspec.Struct, frozen=True, gc=False):
    """One account's side of a print, with its fee in units of the asset received."""

    symbol: str
    trade_id: int
    order_id: int
    price_ticks: int
    size_lots: int
    side: int
    is_maker: bool
    fee_units: int
    fee_asset: str
    time_ms: int


class Report(msgspec.Struct, frozen=True):
    """What just happened to an order, with the cumulative figures as of this event.

    `client_id` is the id of the cancel that did it; `original_id` the order's id before it was amended.
    """

    order: Order
    symbol: str
    execution: Execution
    status: Status
    filled_lots: int
    value: int
    time_ms: int
    fill: Fill | None = None
    client_id: str = ""
    original_id: str = ""


class Market:
    """One symbol: its rules, its book and its public history."""

    def __init__(self, rules: SymbolRules) -> None:
        self.rules = rules
        self.book = Book()
        self.trades: deque[Trade] = deque(maxlen=TRADES_MAX)
        self.candles = Candles()
        self._aggregate_id = 0

    def record(self, matches: Sequence[Match], now_ms: int) -> list[Trade]:
        """Append the prints of one taker order to the tape."""
        trades, price = [], None
        for match in matches:
            if match.price_ticks != price:
                self._aggregate_id += 1
                price = match.price_ticks
            is_buyer_maker = match.taker.side == SELL
            trades.append(Trade(match.trade_id, self._aggregate_id, price, match.size_lots, is_buyer_maker, now_ms))
            self.candles.add(price, match.size_lots, match.taker.side == BUY, now_ms)
        self.trades.extend(trades)
        return trades


class Venue:
    """Order entry, cancel and query for all accounts. Raises `Refused` with the venue's own code."""

    def __init__(self, symbols: Sequence[SymbolRules], accounts: Accounts) -> None:
        self.rules = {rules.symbol: rules for rules in symbols}
        self.markets = {rules.symbol: Market(rules) for rules in symbols}
        self.accounts = accounts
        self.fills: dict[str, deque[Fill]] = {}
        self.on_report: Callable[[Report], None] = _ignore
        self.on_trades: Callable[[str, list[Trade]], None] = _ignore
        self.on_balances: Callable[[str, tuple[str, ...], int], None] = _ignore
        self.on_transfer: Callable[[Transfer], None] = _ignore
        self.on_countdown: Callable[[str, str, int, int], None] = _no_countdown
        self.is_in_maintenance: Callable[[], bool] = bool
        self._orders: dict[int, tuple[str, Order]] = {}
        self._open: dict[tuple[str, str], dict[int, Order]] = {}
        self._by_client_id: dict[tuple[str, str, str], Order] = {}
        self._closed: deque[Order] = deque()
        self._next_id = 0
        self._refusal: Refused | None = None
        self.algos = Algos(self)

    def place(self, account: str, request: NewOrder, now_ms: int) -> tuple[Order, list[Fill]]:
        """Accept or refuse an order, match it, and settle its fills. Returns it with the taker's fills."""
        market = self.markets[request.symbol]
        order = self._admit(account, market, request, now_ms)
        self._reserve(market.rules, order)
        matches, prevented = market.book.submit(order)
        if not order.size_lots:  # sized in quote, and the book was empty
            order.status = "EXPIRED"
        if order.status == "REJECTED":
            self._release(market.rules, order)
            raise Refused(-2010, "Order would immediately match and take.")
        self._remember(market.rules.symbol, order)
        self.report(order, market.rules.symbol, "NEW", "NEW", 0, 0, now_ms)
        fills = self._settle(market, matches, now_ms)
        for maker in prevented:
            self._finish(market.rules, maker, "TRADE_PREVENTION", now_ms)
        if order.status not in _OPEN:
            expired: Execution = "TRADE_PREVENTION" if order.status == "EXPIRED_IN_MATCH" else "EXPIRED"
            self._finish(market.rules, order, None if order.status == "FILLED" else expired, now_ms)
        touched = {order.account, *(m.maker.account for m in matches), *(m.account for m in prevented)}
        self.tell_balances(touched, market.rules, now_ms)
        return order, fills

    def check(self, account: str, request: NewOrder, now_ms: int) -> None:
        """Everything `place` checks before it touches the book (order/test)."""
        self._admit(account, self.markets[request.symbol], request, now_ms)

    def cancel(self, account: str, symbol: str, order: Order, now_ms: int, client_id: str) -> Order:
        """Cancel an open order; `client_id` is the id of the cancel itself. -2011 if it is not open any more."""
        market = self.markets[symbol]
        if order.account != account or market.book.cancel(order.id) is None:
            raise Refused(-2011, "Unknown order sent.")
        self._finish(market.rules, order, "CANCELED", now_ms, client_id)
        self.tell_balances({account}, market.rules, now_ms)
        return order

    def amend(self, account: str, symbol: str, order: Order, size_lots: int, now_ms: int, client_id: str) -> None:
        """Reduce an open order in place: it keeps its place in the queue and goes on under `client_id`.

        -2038 if it is not open, or if `size_lots` is not between what was filled and what it has.
        """
        market, old_id = self.markets[symbol], order.client_id
        if order.account != account or order.id not in market.book.orders or not order.filled_lots < size_lots < order.size_lots:
            raise Refused(-2038, "Order amend (keep priority) request has failed: it must reduce an open order.")
        withdrawn = order.size_lots - size_lots
        self.accounts.unlock(account, *_held(market.rules, order, withdrawn))
        market.book.reduce(order.id, withdrawn)
        order.client_id, order.updated_ms = client_id, now_ms
        self._by_client_id.pop((account, symbol, old_id), None)
        self._by_client_id[account, symbol, client_id] = order
        self.report(order, symbol, "REPLACED", order.status, order.filled_lots, order.value, now_ms, original_id=old_id)
        self.tell_balances({account}, market.rules, now_ms)

    def refuse_next(self, refusal: Refused) -> None:
        """The next order is refused like this."""
        self._refusal = refusal

    def change_rules(self, symbol: str, **changes: int | str) -> None:
        """New rules for new orders; what rests stays as it is."""
        self.rules[symbol] = self.markets[symbol].rules = msgspec.structs.replace(self.rules[symbol], **changes)

    def find(self, account: str, symbol: str, order_id: int | None, client_id: str | None) -> Order:
        """An account's order by its id, or by its client id (the latest that used it). -2013 if there is none."""
        order: Order | None = None
        if order_id is not None:
            where, order = self._orders.get(order_id, (symbol, None))
            if where != symbol:
                order = None
        elif client_id is not None:
            order = self._by_client_id.get((account, symbol, client_id))
        if order is None or order.account != account or (client_id is not None and order.client_id != client_id):
            raise Refused(-2013, "Order does not exist.")
        return order

    def open_orders(self, account: str, symbol: str | None = None) -> list[tuple[str, Order]]:
        """An account's open orders, oldest first."""
        symbols = self.markets if symbol is None else (symbol,)
        found = [(name, order) for name in symbols for order in self._open.get((account, name), {}).values()]
        return sorted(found, key=lambda pair: pair[1].id)

    def all_orders(self, account: str, symbol: str) -> list[Order]:
        """An account's orders in a symbol, open and closed, oldest first (the closed ones as far as they are kept)."""
        return [order for name, order in self._orders.values() if name == symbol and order.account == account]

    def new_client_id(self) -> str:
        """A client id for an order or cancel that brought none."""
        self._next_id += 1
        return f"sbx{self._next_id}"

    def move(self, account: str, asset: str, units: int, now_ms: int, address: str = "", network: str = "") -> Transfer | None:
        """Deposit (units > 0) or withdraw (units < 0), and tell the account; None if it does not have that much free."""
        entry = self.accounts.transfer(account, asset, units, now_ms, address, network)
        if entry is not None:
            self.on_transfer(entry)
            self.on_balances(account, (asset,), now_ms)
        return entry

    # -- the house: background liquidity, without reservations, events or refusals ------------------------------------

    def house_place(
        self, symbol: str, side: int, price_ticks: int, size_lots: int, now_ms: int, time_in_force: TimeInForce = "GTC"
    ) -> Order:
        """Submit a limit order of the house."""
        market = self.markets[symbol]
        order = self._new_order(HOUSE, side, price_ticks, size_lots, "LIMIT", now_ms, client_id="", time_in_force=time_in_force)
        matches, _ = market.book.submit(order)
        if matches:
            self._settle(market, matches, now_ms)
            self.tell_balances({match.maker.account for match in matches}, market.rules, now_ms)
        return order

    def report(
        self, order: Order, symbol: str, execution: Execution, status: Status, filled_lots: int, value: int,
        now_ms: int, fill: Fill | None = None, client_id: str = "", original_id: str = "",
    ) -> None:  # fmt: skip
        """Tell whoever listens what happened to an order. Of the house nothing is told."""
        if order.account != HOUSE:
            self.on_report(Report(order, symbol, execution, status, filled_lots, value, now_ms, fill, client_id, original_id))

    def tell_balances(self, accounts: set[str], rules: SymbolRules, now_ms: int) -> None:
        """Tell the accounts what they hold in a symbol's two assets."""
        for account in sorted(accounts - {HOUSE}):
            self.on_balances(account, (rules.base, rules.quote), now_ms)

    # -- private ------------------------------------------------------------------------------------------------------

    def _admit(self, account: str, market: Market, request: NewOrder, now_ms: int) -> Order:
        rules, book = market.rules, market.book
        refusal, self._refusal = self._refusal, None
        if refusal is not None:
            raise refusal
        if rules.status != "TRADING":
            raise Refused(-1013, "Market is closed.")
        known = request.client_id and self._by_client_id.get((account, rules.symbol, request.client_id))
        if known and known.status in _OPEN:
            raise Refused(-2010, "Duplicate order sent.")
        if len(self._open.get((account, rules.symbol), ())) >= rules.open_orders_max and request.kind != "MARKET":
            raise Refused(-1013, "Filter failure: MAX_NUM_ORDERS")
        size = request.size_lots
        if request.quote_units:
            size = book.sweep_value(request.side, rules.value_down(request.quote_units))[0]
            if not size and book.best(1 - request.side) is not None:
                raise Refused(-1013, "Filter failure: LOT_SIZE")
        if request.kind == "MARKET":
            best = book.best(1 - request.side)
            if best is not None and not request.quote_units:
                check_notional(rules, rules.quote_units(best[0] * size))
        order = self._new_order(
            account, request.side, request.price_ticks, size, request.kind, now_ms,
            client_id=request.client_id or self.new_client_id(), time_in_force=request.time_in_force,
        )  # fmt: skip
        order.prevention, order.quote_units = request.prevention, request.quote_units
        asset, need = self._cost(market, order)
        if not self.accounts.can_pay(account, asset, need):
            raise Refused(-2010, "Account has insufficient balance for requested action.")
        return order

    def _new_order(
        self, account: str, side: int, price_ticks: int, size_lots: int, kind: Kind, now_ms: int, *,
        client_id: str, time_in_force: TimeInForce,
    ) -> Order:  # fmt: skip
        self._next_id += 1
        return Order(
            id=self._next_id, account=account, client_id=client_id, side=side, price_ticks=price_ticks,
            size_lots=size_lots, kind=kind, time_in_force=time_in_force, created_ms=now_ms, updated_ms=now_ms,
        )  # fmt: skip

    def _cost(self, market: Market, order: Order) -> tuple[str, int]:
        """What the account must have free: (asset, units)."""
        rules = market.rules
        if order.side == SELL:
            return rules.base, rules.base_units(order.size_lots)
        if order.kind == "MARKET":
            return rules.quote, rules.quote_units(market.book.sweep(BUY, order.size_lots)[1])
        return rules.quote, rules.quote_units(order.price_ticks * order.size_lots)

    def _reserve(self, rules: SymbolRules, order: Order) -> None:
        self.accounts.lock(order.account, *_held(rules, order, order.open_lots))

    def _release(self, rules: SymbolRules, order: Order) -> None:
        self.accounts.unlock(order.account, *_held(rules, order, order.open_lots))

    def _settle(self, market: Market, matches: list[Match], now_ms: int) -> list[Fill]:
        taken = []
        for match in matches:
            if match.taker.account == HOUSE == match.maker.account:
                continue  # the world trading with itself moves nothing
            for order, is_maker in ((match.taker, False), (match.maker, True)):
                fill = self._book_fill(market.rules, match, order, is_maker, now_ms)
                if not is_maker:
                    taken.append(fill)
                if order.account == HOUSE:
                    continue
                order.updated_ms = now_ms
                filled = match.maker_filled_lots if is_maker else match.taker_filled_lots
                value = match.maker_value if is_maker else match.taker_value
                status: Status = "FILLED" if filled == order.size_lots else "PARTIALLY_FILLED"
                self.report(order, market.rules.symbol, "TRADE", status, filled, value, now_ms, fill)
                if is_maker and order.status == "FILLED":
                    self._finish(market.rules, order, None, now_ms)
        if matches:
            self.on_trades(market.rules.symbol, market.record(matches, now_ms))
        return taken

    def _book_fill(self, rules: SymbolRules, match: Match, order: Order, is_maker: bool, now_ms: int) -> Fill:
        base = rules.base, rules.base_units(match.size_lots)
        quote = rules.quote, rules.quote_units(match.price_ticks * match.size_lots)
        paid, received = (quote, base) if order.side == BUY else (base, quote)
        fee = self.accounts.fee_down(order.account, received[1], is_maker)
        reserved = _held(rules, order, match.size_lots)[1]
        self.accounts.exchange(order.account, paid, reserved, received, fee)
        fill = Fill(
            rules.symbol, match.trade_id, order.id, match.price_ticks, match.size_lots, order.side,
            is_maker, fee, received[0], now_ms,
        )  # fmt: skip
        if order.account != HOUSE:
            self.fills.setdefault(order.account, deque(maxlen=TRADES_MAX)).append(fill)
        return fill

    def _finish(self, rules: SymbolRules, order: Order, execution: Execution | None, now_ms: int, client_id: str = "") -> None:
        """Close an order: give back what it still reserves, and report its end unless a fill already did."""
        if order.account == HOUSE:
            return
        order.updated_ms = now_ms
        self._release(rules, order)
        self._open.get((order.account, rules.symbol), {}).pop(order.id, None)
        self._closed.append(order)
        while len(self._closed) > ORDERS_MAX:
            self._forget(self._closed.popleft())
        if execution is not None:
            self.report(order, rules.symbol, execution, order.status, order.filled_lots, order.value, now_ms, None, client_id)

    def _remember(self, symbol: str, order: Order) -> None:
        self._orders[order.id] = (symbol, order)
        self._by_client_id[order.account, symbol, order.client_id] = order
        if order.status in _OPEN:
            self._open.setdefault((order.account, symbol), {})[order.id] = order

    def _forget(self, order: Order) -> None:
        symbol, _ = self._orders.pop(order.id)
        key = order.account, symbol, order.client_id
        if self._by_client_id.get(key) is order:
            del self._by_client_id[key]


def _held(rules: SymbolRules, order: Order, lots: int) -> tuple[str, int]:
    """What `lots` of an order reserve: (asset, units). A market buy reserves nothing: it is paid fill by fill."""
    if order.side == SELL:
        return rules.base, rules.base_units(lots)
    return rules.quote, rules.quote_units(order.price_ticks * lots)


def _ignore(*_: object) -> None:
    """The listener before anybody listens."""


def _no_countdown(_account: str, _symbol: str, _length_ms: int, _now_ms: int) -> None:
    raise Refused(-5000, "Path /fapi/v1/countdownCancelAll, Method POST is invalid", 404)
