"""The parameters that several algorithms share, each with its bounds and its words, so that one name means one thing."""

from typing import Annotated, Literal

from msgspec import Meta

SECOND_NS = 1_000_000_000
DURATION_NS_MAX = 31 * 86_400 * SECOND_NS
PARTS_MAX = 1_000
MILLISECOND_NS = 1_000_000

Duration = Annotated[
    int, Meta(ge=SECOND_NS, le=DURATION_NS_MAX, description="How long it works, from when the order is accepted: 10m, 2h.")
]
Interval = Annotated[int, Meta(ge=100 * MILLISECOND_NS, le=DURATION_NS_MAX, description="Between its slices: 5s, 1m.")]
RandomiseSize = Annotated[int, Meta(ge=0, le=50, description="Slices larger or smaller by up to so many per cent.")]
RandomiseTime = Annotated[int, Meta(ge=0, le=50, description="Slices later by up to so many per cent of the interval.")]
CatchUp = Annotated[int, Meta(ge=100, le=10_000, description="What was missed: at most so many per cent of a slice at once.")]
Placement = Annotated[
    Literal["take", "auto", "passive"],
    Meta(description="take: at once; passive: only by resting at the best price; auto: whichever is expected to cost less."),
]
NativePct = Annotated[
    int, Meta(ge=0, le=100, description="So many per cent are worked by a venue's own TWAP, where one offers it; the rest here.")
]
Refresh = Annotated[
    int, Meta(ge=100 * MILLISECOND_NS, le=3_600 * SECOND_NS, description="Before the next look at a resting order: 500ms, 2s.")
]
