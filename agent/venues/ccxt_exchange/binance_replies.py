"""What Binance spot's replies to orders, cancels and replacements prove, leg by leg."""

import contextlib
from collections.abc import Sequence
from typing import Any

from agent.domain.errors import FrameError, VenueError
from agent.domain.events import OrderReported
from agent.domain.order import OrderRef, OrderState
from agent.domain.plan import VenueRequest
from agent.ports import PrivateFact
from agent.venues.ccxt_exchange import binance_rest as rest
from agent.venues.ccxt_exchange import binance_wire as wire
from agent.venues.ccxt_exchange.binance_questions import Questions
from agent.venues.ccxt_exchange.client import Client
from agent.venues.ccxt_exchange.own_orders import OwnOrders

SUCCESS, FAILURE = "SUCCESS", "FAILURE"


class Replies:
    """Reads replies, and asks where one raises a question."""

    def __init__(self, client: Client, own: OwnOrders, questions: Questions) -> None:
        self._client, self._own, self._questions = client, own, questions

    async def proved(self, request: VenueRequest, reply: Any) -> Sequence[PrivateFact]:
        """The facts in a reply. FrameError if it is not understood: then the outcome is not known."""
        facts: Sequence[PrivateFact]
        if request.action == "replace":
            facts = await self._legs(request, rest.read(rest.read(reply, dict[str, Any]).get("data", reply), rest.LegsView))
        elif request.action == "cancel":
            facts = (*self._taken_back(reply, self._target(request)), wire.cancel_done(request.order_id, self._target(request)))
        else:
            facts = self._placed(reply, request.order_id)
        self._own.note(facts, self._client.clock.now_ns())
        return facts

    async def target_of(self, request: VenueRequest) -> Sequence[PrivateFact]:
        """What became of the order that could not be cancelled. Raises VenueError."""
        symbol = dict(request.fields)["symbol"]
        instrument = self._questions.markets.context.instrument(symbol)
        return await self._questions.inquire(OrderRef(self._target(request), self._client.name, instrument.id))

    def _target(self, request: VenueRequest) -> str:
        fields = dict(request.fields)
        return self._own.original(fields["cancelOrigClientOrderId" if request.action == "replace" else "origClientOrderId"])

    def _placed(self, reply: Any, order_id: str) -> Sequence[PrivateFact]:
        view, context = rest.read(reply, rest.OrderView), self._questions.markets.context
        if view.told_id != order_id:
            raise FrameError(f"it is about {view.told_id[:40]!r}")
        self._own.accepted(order_id, self._client.clock.now_ns())
        self._questions.name(view)
        return (*rest.fills_in_reply(view, order_id, context), rest.order_report(view, order_id, context))

    def _taken_back(self, reply: Any, target: str) -> Sequence[PrivateFact]:
        view = rest.read(reply, rest.OrderView)
        if self._questions.name(view) != target:
            raise FrameError(f"it is about {view.told_id[:40]!r}")
        return (rest.order_report(view, target, self._questions.markets.context),)

    async def _legs(self, request: VenueRequest, legs: rest.LegsView) -> Sequence[PrivateFact]:
        """Each leg by its own answer; a leg whose answer leaves a question open is UNKNOWN, or asked about at once."""
        order_id, target = request.order_id, self._target(request)
        facts: list[PrivateFact] = []
        if legs.cancel_result == SUCCESS:
            facts += self._taken_back(legs.cancel_response, target)
        else:
            with contextlib.suppress(VenueError):  # it is an order of ours: it will be asked about again
                facts += await self.target_of(request)
        if legs.new_order_result == SUCCESS:
            return (*facts, *self._placed(legs.new_order_response, order_id))
        why = _complaint(legs.new_order_response if legs.new_order_result == FAILURE else legs.cancel_response)
        text = f"{why.code} {why.msg}".strip()
        if legs.new_order_result == FAILURE and not rest.proves_refusal(400, str(why.code), why.msg):
            return (*facts, OrderReported(order_id, OrderState.UNKNOWN, text))
        is_tried = legs.new_order_result == FAILURE
        reason = text if is_tried else f"not tried, because {target} could not be taken back: {text}"
        return (*facts, OrderReported(order_id, OrderState.REJECTED, reason))


def _complaint(answer: Any) -> rest.Complaint:
    return rest.read(answer, rest.Complaint)
