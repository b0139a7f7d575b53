"""How a slice of a parent was split over the venues, as it is journaled: the pieces, the alternatives, and the words to them."""

import msgspec

from agent.domain.amount import Amount
from agent.domain.plan import Reason
from agent.domain.price import Price


class RoutePiece(msgspec.Struct, frozen=True):
    """One venue's part of a route, with its reasons. Prices are all-in: after fee, gas spread over the piece."""

    instrument: str
    base: Amount  # of the base group
    quote: Amount  # of the quote group, after fee and before gas
    share: float
    price: float
    price_all_in: float
    fee_pips: int
    gas: Amount  # of the quote group
    why: str
    charge_pips: int = 0  # what the venue's scorecard adds to the price in the search; no money changes hands for it


class Alternative(msgspec.Struct, frozen=True):
    """What one venue alone would have given for the same quantity, after fee and gas; None if it could not."""

    venue: str
    quote: Amount | None  # of the quote group
    why: str


class Routed(msgspec.Struct, frozen=True, tag=True):
    """How one slice of a parent was split, and what it was compared with."""

    intent_id: str
    slice_index: int
    quantity: Amount  # of the base group
    pieces: tuple[RoutePiece, ...]
    quote: Amount  # of the quote group: all pieces after fee and gas
    alternatives: tuple[Alternative, ...]
    rejected: tuple[Reason, ...]  # sources that were not used, and why
    mid: Price | None = None  # the middle of the trusted view that it was decided on
    decided_ns: int = 0  # the clock that it was decided by: with it a replay finds the same charges
    wanted: Amount | None = None  # what the algorithm wants to have traded in all, this slice included


class Marked(msgspec.Struct, frozen=True, tag=True):
    """Where the market stood `after_ns` from the first trade of an order on: the middle of the trusted view."""

    order_id: str
    after_ns: int
    mid: Price


class RouteExplained(msgspec.Struct, frozen=True, tag=True):
    """Why a slice was split like that, piece by piece, and what the alternatives were; known when its orders have left."""

    intent_id: str
    slice_index: int
    whys: tuple[str, ...]  # of the pieces, in their order
    alternatives: tuple[Alternative, ...]
    rejected: tuple[Reason, ...]

    def told_of(self, route: Routed) -> Routed:
        """The same route with these words."""
        whys = (*self.whys, *[""] * (len(route.pieces) - len(self.whys)))
        pieces = tuple(msgspec.structs.replace(piece, why=why) for piece, why in zip(route.pieces, whys, strict=False))
        return msgspec.structs.replace(route, pieces=pieces, alternatives=self.alternatives, rejected=self.rejected)


class WholeQuoted(msgspec.Struct, frozen=True, tag=True):
    """What a parent that is worked over time would have given in one go when it was accepted: the best of all sources, without a
    limit, with the account's own balances.
    """

    intent_id: str
    quantity: Amount  # of the base group: how much of it that would have been
    quote: Amount  # of the quote group, after fees and gas
    why: str = ""  # it would not have been all
