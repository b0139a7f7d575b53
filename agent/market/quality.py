"""Which sources deserve trust right now. A source that is not trusted is left out and named, with a reason; it is never guessed at.

Every check is a small question with a stable code: is it there, fresh, consistent with itself, and in agreement with the others?
"""

import msgspec

from agent.domain.market import ChainHead
from agent.domain.plan import Reason
from agent.domain.price import Price, bps_between
from agent.market.book import Book

STALE_BOOK = "STALE_BOOK"
STALE_POOL = "STALE_POOL"
STALE_CHAIN = "STALE_CHAIN"
NO_POOL = "NO_POOL"
BAD_POOL = "BAD_POOL"
OUTLIER = "OUTLIER"

_SECOND = 1_000_000_000
_TEXTS = {
    "NO_BOOK": "no snapshot of the book has arrived yet",
    "BOOK_GAP": "updates of the book are missing; it waits for a new snapshot",
    "CROSSED_BOOK": "the best bid reaches the best ask, so an update is missing; it waits for a new snapshot",
}


class QualityLimits(msgspec.Struct, frozen=True):
    """When a source stops being trusted. Zero switches a check off.

    `book_age_ns_max`: since the last word about a book. `head_age_ns_max`: since the last block of a chain reached us.
    `pool_blocks_max`: how many blocks a pool's state may be older than the head. `outlier_bps_max`: distance of a middle from the
    median of the other sources.
    """

    book_age_ns_max: int = 3 * _SECOND
    head_age_ns_max: int = 60 * _SECOND
    pool_blocks_max: int = 3
    outlier_bps_max: int = 200


def book_trouble(name: str, book: Book | None, now_ns: int, limits: QualityLimits) -> Reason | None:
    """Why a book cannot be trusted, or None."""
    code = book.trouble if book else "NO_BOOK"
    if code or not book:
        return Reason(code, f"{name}: {_TEXTS[code]}")
    if 0 < limits.book_age_ns_max < now_ns - book.at_ns:
        return Reason(
            STALE_BOOK, f"{name}: no update for {_seconds(now_ns - book.at_ns)} (limit {_seconds(limits.book_age_ns_max)})"
        )
    return None


def pool_trouble(name: str, block: int, head: ChainHead | None, now_ns: int, limits: QualityLimits) -> Reason | None:
    """Why a pool's state, read at `block`, cannot be trusted, or None. The chain's head vouches for it."""
    if head is None:
        return Reason(STALE_CHAIN, f"{name}: no block of its chain has arrived yet")
    if 0 < limits.head_age_ns_max < now_ns - head.at_ns:
        age, limit = _seconds(now_ns - head.at_ns), _seconds(limits.head_age_ns_max)
        return Reason(STALE_CHAIN, f"{name}: no new block of chain {head.chain_id} for {age} (limit {limit})")
    if 0 < limits.pool_blocks_max < head.number - block:
        return Reason(STALE_POOL, f"{name}: read {head.number - block} blocks ago (limit {limits.pool_blocks_max})")
    return None


def outlier_trouble(name: str, mid: Price, median: Price, limits: QualityLimits) -> Reason | None:
    """Why a middle price cannot be trusted beside the `median` of the other sources, or None."""
    away_bps = abs(bps_between(mid, median))
    if 0 < limits.outlier_bps_max < away_bps:
        return Reason(
            OUTLIER,
            f"{name}: its middle {mid} is {away_bps:.0f} bps away from the others' {median} (limit {limits.outlier_bps_max})",
        )
    return None


def _seconds(span_ns: int) -> str:
    return f"{span_ns / _SECOND:.1f} s"
