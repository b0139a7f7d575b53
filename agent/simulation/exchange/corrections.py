"""What an exchange does to its own record: a trade taken back, a trade too many, everything cancelled when a client falls silent.

Binance documents no message for a trade that is taken back; the report has the execution type TRADE_CANCEL here (FIX calls it so,
ExecType H), with the id and size of the trade and the sums without it.
"""

from __future__ import annotations

from collections import deque

from agent.simulation.exchange.accounts import HOUSE
from agent.simulation.exchange.filters import SymbolRules
from agent.simulation.exchange.matching import BUY, Order, Status
from agent.simulation.exchange.venue import TRADES_MAX, Fill, Venue

Side = tuple[tuple[str, int], tuple[str, int]]


def bust(venue: Venue, account: str, symbol: str, now_ms: int) -> int:
    """Take the newest trade of `account` back, on both sides. Returns its id; ValueError if there is none, or its order is open."""
    fill = next((fill for fill in reversed(venue.fills.get(account, ())) if fill.symbol == symbol), None)
    if fill is None:
        raise ValueError(f"account '{account[:40]}' has no trade in {symbol[:20]} to take back")
    sides = [(owner, one) for owner, fills in venue.fills.items() for one in fills if _is_same(one, fill)]
    if any(venue.find(owner, symbol, one.order_id, None).status in ("NEW", "PARTIALLY_FILLED") for owner, one in sides):
        raise ValueError("only trades of orders that have ended can be taken back")
    rules = venue.rules[symbol]
    for owner, one in sides:
        venue.accounts.reverse(owner, *_moved(rules, one), one.fee_units)
        venue.fills[owner].remove(one)
        order = venue.find(owner, symbol, one.order_id, None)
        order.filled_lots -= one.size_lots
        order.value -= one.size_lots * one.price_ticks
        order.updated_ms = now_ms
        venue.report(order, symbol, "TRADE_CANCEL", order.status, order.filled_lots, order.value, now_ms, one)
    if len(sides) == 1:  # the other side was the house
        paid, received = _moved(rules, fill)
        venue.accounts.reverse(HOUSE, received, paid, 0)
    venue.tell_balances({owner for owner, _ in sides}, rules, now_ms)
    return fill.trade_id


def trade_once_more(venue: Venue, account: str, symbol: str, status: Status, now_ms: int) -> Fill:
    """The newest order that ended as `status` trades again with the house, at its own price. ValueError if there is none."""
    order = next((one for one in reversed(venue.all_orders(account, symbol)) if one.status == status), None)
    if order is None:
        raise ValueError(f"account '{account[:40]}' has no order in {symbol[:20]} that is {status}")
    market, rules = venue.markets[symbol], venue.rules[symbol]
    lots = order.open_lots or order.size_lots
    asset = rules.base if order.side == BUY else rules.quote
    whole = rules.base_units(lots) if order.side == BUY else rules.quote_units(lots * order.price_ticks)
    fill = Fill(
        symbol, market.book.next_trade_id(), order.id, order.price_ticks, lots, order.side, True,
        venue.accounts.fee_down(account, whole, True), asset, now_ms,
    )  # fmt: skip
    paid, received = _moved(rules, fill)
    venue.accounts.exchange(account, paid, 0, received, fill.fee_units)
    venue.accounts.exchange(HOUSE, received, 0, paid, 0)
    venue.fills.setdefault(account, deque(maxlen=TRADES_MAX)).append(fill)
    order.filled_lots += lots
    order.value += lots * order.price_ticks
    order.updated_ms = now_ms
    venue.report(order, symbol, "TRADE", "FILLED", order.filled_lots, order.value, now_ms, fill)
    venue.tell_balances({account}, rules, now_ms)
    return fill


def amend_by_hand(venue: Venue, account: str, symbol: str, now_ms: int, *, is_same_id: bool) -> Order:
    """Halve what is open of the newest resting order. ValueError if none rests, or only one lot is left."""
    found = venue.open_orders(account, symbol)
    if not found or found[-1][1].open_lots < 2:
        raise ValueError(f"account '{account[:40]}' has no resting order in {symbol[:20]} that could be halved")
    order = found[-1][1]
    size_lots = order.filled_lots + order.open_lots // 2
    venue.amend(account, symbol, order, size_lots, now_ms, order.client_id if is_same_id else venue.new_client_id())
    return order


class Countdowns:
    """Binance USD-M's dead man's switch, per account and symbol: whoever does not start it anew loses all resting orders."""

    def __init__(self) -> None:
        self._due_ms: dict[tuple[str, str], int] = {}

    def start(self, account: str, symbol: str, length_ms: int, now_ms: int) -> None:
        """Count down from `length_ms`; 0 stops it."""
        self._due_ms.pop((account, symbol), None)
        if length_ms:
            self._due_ms[account, symbol] = now_ms + length_ms

    def tick(self, venue: Venue, now_ms: int) -> None:
        """Cancel for those whose time is up."""
        for account, symbol in [who for who, due_ms in self._due_ms.items() if due_ms <= now_ms]:
            del self._due_ms[account, symbol]
            for _, order in venue.open_orders(account, symbol):
                venue.cancel(account, symbol, order, now_ms, venue.new_client_id())


def _is_same(one: Fill, other: Fill) -> bool:
    return one.symbol == other.symbol and one.trade_id == other.trade_id


def _moved(rules: SymbolRules, fill: Fill) -> Side:
    """What one side of a fill paid and received, before its fee."""
    base = rules.base, rules.base_units(fill.size_lots)
    quote = rules.quote, rules.quote_units(fill.price_ticks * fill.size_lots)
    return (quote, base) if fill.side == BUY else (base, quote)
