"""What an algorithm may want next: take a quantity over all venues now, let one rest at a book, or have a venue work it."""

from typing import Literal

import msgspec

from agent.domain.amount import Amount
from agent.domain.price import Price


class Take(msgspec.Struct, frozen=True):
    """Route `quantity` (base group) over all venues. `wanted`: what should have been traded in all then, if there is a plan.

    `placement`: whether the parts at books may rest at the best price instead, until `until_ns`. `limit`: tighter than the
    parent's; `is_all_in`: it counts after fees and gas. `is_last`: nothing comes after it that could be cheaper.
    """

    quantity: Amount
    wanted: Amount | None = None
    placement: Literal["take", "auto", "passive"] = "take"
    until_ns: int = 0
    limit: Price | None = None
    is_all_in: bool = False
    is_last: bool = False


class Rest(msgspec.Struct, frozen=True):
    """Let `quantity` (base group) rest on one book, at exactly `ticks`; it never takes."""

    instrument: str
    ticks: int
    quantity: Amount
    why: str


class HandOver(msgspec.Struct, frozen=True):
    """Let the instrument's venue work `quantity` (base group) by its own TWAP over so many seconds, within the parent's limit."""

    instrument: str
    quantity: Amount
    seconds: int


Move = Take | Rest | HandOver
