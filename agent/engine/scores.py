"""How the facts of the journal reach the scorecards: an order counts once for its first answer, once for its end, and once for each
look at the market after it. Called by the state alone; every step takes constant time.
"""

import msgspec

from agent.domain.amount import group_asset
from agent.domain.events import Marked
from agent.domain.instrument import Side
from agent.domain.order import NEVER_SENT, WOULD_TAKE, Order, OrderState
from agent.domain.plan import PlaceOrder, SwapBatch
from agent.domain.price import Price
from agent.engine.parent import Parent
from agent.execution.gap import Money, promise, traded
from agent.routing.scorecard import CARDS_MAX, HORIZONS_NS, Card, Ended, Scoring, answered, ended, marked

MILLION = 1e6
TAKING = frozenset({"IOC", "FOK"})
UNMARKED_MAX = 64  # orders for whose market somebody still looks; older ones make room
LATE_NS = 500_000_000  # how late a look may come, and still counts
_SAYS_NOTHING = frozenset({OrderState.CANCELLED, OrderState.EXPIRED, OrderState.REPLACED})  # of a transaction, about its venue


class Scores(msgspec.Struct):
    """Owns the cards, and which orders are still to be marked (when each first traded). A part of the state."""

    scoring: Scoring = Scoring()
    cards: dict[str, Card] = {}
    unmarked: dict[str, int] = {}

    def heard(self, order: Order, now_ns: int) -> None:
        """Any word of the venue about an order that was sent; only the first counts. That we gave up waiting is no word of it."""
        if order.sent_ns and not order.heard_ns:
            order.heard_ns = now_ns
            card = self._card(order)
            if card is not None:
                self.cards[order.plan.venue] = answered(card, self.scoring, now_ns, now_ns - order.sent_ns)

    def traded(self, order: Order, now_ns: int) -> None:
        """A fill: from the first one on the market is looked at, where a route says what was expected."""
        if order.filled_ns or order.route < 0:
            return
        order.filled_ns = now_ns
        done_ns = now_ns - HORIZONS_NS[-1] - LATE_NS
        while self.unmarked:
            oldest = next(iter(self.unmarked))
            if len(self.unmarked) < UNMARKED_MAX and self.unmarked[oldest] > done_ns:
                break
            del self.unmarked[oldest]
        self.unmarked[order.order_id] = now_ns

    def ended(self, order: Order, parent: Parent | None, now_ns: int) -> None:
        """Its end, with all its fills. What never left, and what we took back ourselves, says nothing about the venue."""
        if order.is_scored or not order.sent_ns or order.reason.startswith(NEVER_SENT):
            return
        order.is_scored = True
        card, how = self._card(order), _how(order, parent)
        if card is not None and how is not None:
            reason = order.reason if how.is_rejected or how.is_reverted else ""
            self.cards[order.plan.venue] = ended(card, self.scoring, now_ns, how, reason)

    def marked(self, order: Order, parent: Parent | None, event: Marked, now_ns: int) -> None:
        if order.mark(event.after_ns) is not None:
            return
        order.marks = (*order.marks, (event.after_ns, event.mid))
        if event.after_ns >= HORIZONS_NS[-1]:
            self.unmarked.pop(order.order_id, None)
        card = self._card(order)
        if card is None or parent is None or not order.fills:
            return
        sign, price = (1 if parent.intent.side == "sell" else -1), _price(order, parent.intent.side)
        if not price:
            return
        middle, first = _float(event.mid), order.mark(0)
        back = sign * (middle / _float(first) - 1) * MILLION if first is not None else None
        self.cards[order.plan.venue] = marked(
            card, self.scoring, now_ns, event.after_ns, sign * (middle / price - 1) * MILLION, back
        )

    def _card(self, order: Order) -> Card | None:
        """The venue's card; a new one for a new venue, unless there are too many."""
        if not isinstance(order.plan, PlaceOrder | SwapBatch):
            return None
        card = self.cards.get(order.plan.venue)
        return Card() if card is None and len(self.cards) < CARDS_MAX else card


def _how(order: Order, parent: Parent | None) -> Ended | None:
    plan = order.plan
    if isinstance(plan, PlaceOrder):
        is_rejected = order.state is OrderState.REJECTED and not order.reason.startswith(WOULD_TAKE)
        is_taking = plan.time_in_force in TAKING and not is_rejected and order.quantity > 0
        share = min(order.filled / order.quantity, 1.0) if is_taking else None
        return Ended(is_rejected, None, share, _drift_pips(order, parent))
    if order.state in _SAYS_NOTHING:
        return None
    if order.state is OrderState.REJECTED:
        return Ended(is_rejected=True)
    if order.state is OrderState.REVERTED:
        return Ended(is_reverted=True, lost_gas_pips=_lost_gas_pips(order, parent))
    return Ended(is_reverted=False, drift_pips=_drift_pips(order, parent))


def _drift_pips(order: Order, parent: Parent | None) -> float | None:
    """How much worse than its pieces of the route it traded, before fees. None: there was no route, or nothing was traded."""
    if parent is None or order.route < 0:
        return None
    money, is_book = _money(parent), isinstance(order.plan, PlaceOrder)
    expected = got = 0
    for piece in parent.routes[order.route].pieces:
        base, gross = traded((fill for fill in order.fills if fill.instrument == piece.instrument), money)
        if base:
            expected += promise(piece, base, money.side, is_book=is_book).gross
            got += gross
    if not expected:
        return None
    worse = expected - got if money.side == "sell" else got - expected
    return worse / expected * MILLION


def _lost_gas_pips(order: Order, parent: Parent | None) -> float | None:
    """What a batch that reverted cost, of what it would have traded. None where the coin had no price at arrival."""
    gas = order.gas
    if parent is None or parent.coin is None or gas is None or order.route < 0 or not isinstance(order.plan, SwapBatch):
        return None
    names = {leg.instrument for leg in order.plan.legs}
    value = sum(piece.quote.units for piece in parent.routes[order.route].pieces if piece.instrument in names)
    cost = gas.units / 10.0**gas.asset.decimals * _float(parent.coin) * 10.0 ** _money(parent).quote.decimals
    return cost / value * MILLION if value > 0 else None


def _price(order: Order, side: Side) -> float:
    """Of all fills, before fees, in quote coins per base coin; 0 where there is none. All are of the same two coins."""
    paid, got = sum(int(one.paid.units) for one in order.fills), sum(int(one.received.units) for one in order.fills)
    one = order.fills[0]
    gave, came = paid / 10.0**one.paid.asset.decimals, got / 10.0**one.received.asset.decimals
    base, quote = (gave, came) if side == "sell" else (came, gave)
    return quote / base if base else 0.0


def _money(parent: Parent) -> Money:
    return Money(parent.intent.side, parent.intent.quantity.asset, group_asset(parent.intent.quote), {})


def _float(price: Price) -> float:
    return int(price.num) / int(price.den)
