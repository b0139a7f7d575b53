"""Why a slice was split as it was, worked out when its orders have left: words and alternatives take longer than the split."""

from collections.abc import Mapping

import msgspec

from agent.domain.amount import Amount
from agent.domain.events import RouteExplained
from agent.domain.instrument import Side
from agent.domain.price import Price
from agent.market.view import View
from agent.routing.cost import Charge, GasPrice
from agent.routing.memo import Memo
from agent.routing.scorecard import worded
from agent.routing.split import NoRoute, Route, split
from agent.routing.terms import Rules


class Question(msgspec.Struct, frozen=True):
    """Everything that one split depends on. The same question has the same answer whenever it is asked."""

    intent_id: str
    index: int  # of the slice
    view: View
    side: Side
    quantity: Amount
    capacity: Mapping[str, Amount]
    gas: Mapping[int, GasPrice]
    limit: Price | None
    rules: Rules
    charges: Mapping[str, Charge]
    rests: Mapping[str, str] = {}  # instruments where a part rests instead of taking, and why

    def route(self, memo: Memo) -> Route | NoRoute:
        """The split without words."""
        return self._split(memo, is_explained=False)

    def explained(self) -> RouteExplained:
        """The words to it."""
        found = self._split(None, is_explained=True)
        assert isinstance(found, Route), "what was routed before is routed again"
        whys = tuple(
            self.rests.get(piece.instrument.id) or worded(piece.why, self.charges.get(piece.instrument.id))
            for piece in found.pieces
        )
        reason = (found.unplaced_reason,) if found.unplaced_reason else ()
        return RouteExplained(self.intent_id, self.index, whys, found.alternatives, (*found.rejected, *reason))

    def _split(self, memo: Memo | None, *, is_explained: bool) -> Route | NoRoute:
        return split(
            self.view,
            self.side,
            self.quantity,
            self.capacity,
            self.gas,
            self.limit,
            self.rules,
            self.charges,
            memo,
            is_explained=is_explained,
        )
