"""What the client wishes: the parent order. It names groups of assets, never a venue."""

import msgspec

from agent.domain.algo import Algo
from agent.domain.amount import Amount
from agent.domain.instrument import Side
from agent.domain.price import Price
from agent.domain.trigger import Trigger


class Intent(msgspec.Struct, frozen=True):
    """Trade `quantity` of the base group against the quote group, in `slices` equal parts `interval_ns` apart.

    `rests`: what a book does not take at once stays there at its limit, until it is filled, cancelled or past the deadline.

    `algo`: worked by it instead, from when it is accepted on; then it has one slice and no interval of its own.

    `slippage_bps_max`: no child may trade worse than this beyond the arrival price. `limit`: nor worse than this, whatever the
    arrival price was. Both before fees. `would`: where all that is left can be had at this price or better, it is taken at once.

    `deadline_ns`: nothing is sent after it.

    `trigger`: it waits until the market has reached a price. `group`: orders of one name trade together no more than the largest
    of them. `after`: it trades no more than that order has. See `docs/orders.md`.
    """

    intent_id: str
    account: str
    strategy: str
    side: Side
    quantity: Amount  # of the base group (home `*`)
    quote: str  # the quote group
    slippage_bps_max: int
    deadline_ns: int
    slices: int = 1
    interval_ns: int = 0
    rests: bool = False
    algo: Algo | None = None
    limit: Price | None = None
    would: Price | None = None
    trigger: Trigger | None = None
    group: str = ""
    after: str = ""

    @property
    def base(self) -> str:
        return self.quantity.asset.group

    @property
    def market(self) -> str:
        return f"{self.base}/{self.quote}"
