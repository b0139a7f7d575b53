"""How sure a trade is: what a venue only reports can be reported differently, and a block can be taken back until it is final."""

from typing import Literal

from agent.domain.order import Order, OrderState
from agent.domain.plan import ChainPlan

Finality = Literal["reported", "mempool", "block", "final"]

_ON_CHAIN: dict[OrderState, Finality] = {
    OrderState.SENT: "mempool",
    OrderState.UNKNOWN: "mempool",
    OrderState.OPEN: "mempool",
    OrderState.MINED: "block",
    OrderState.REVERTED: "block",  # a reorganisation may still bring the trade to life
    OrderState.FINAL: "final",
}


def finality(order: Order) -> Finality:
    """`reported`: the word of a venue, or of ours, and nothing stronger exists. `mempool`: signed bytes may be with nodes.

    `block`: mined, may be reorganised. `final`: the chain's own finality. An exchange never gets further than `reported`.
    """
    if not isinstance(order.plan, ChainPlan):
        return "reported"
    if order.block:
        return "final" if order.is_final else "block"
    return _ON_CHAIN.get(order.state, "reported")
