"""The words of `isthmus kill`: what a sweep over the venues may do, and what it found, cancelled and left at one of them."""

import msgspec

SETTLE_MS = 250  # an order that was on its way when the kill began has arrived by then


class Sweep(msgspec.Struct, frozen=True):
    """What one sweep may do. `until_ms` is on the event loop's clock; `is_dry`: look, and leave everything as it is."""

    until_ms: int
    is_dry: bool = False
    settle_ms: int = SETTLE_MS


class Swept(msgspec.Struct, frozen=True):
    """One venue after the sweep. `left` None: nobody knows, because the venue did not say.

    `ms` is from the sweep's beginning until it was certain, `at_ns` that moment (unix time); `note` says what to do.
    """

    venue: str
    found: int
    cancelled: int
    left: int | None
    ms: int = 0
    note: str = ""
    at_ns: int = 0
