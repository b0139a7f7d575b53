"""What many runs amount to: means, and how far they can be trusted. The same numbers give the same interval: the dice are seeded.

Runs over one tape share parts of the market when they begin close to one another, and then they know less than as many separate
ones. So they are drawn in blocks of neighbours as long as a run lasts (the circular block bootstrap of Politis and Romano, 1992),
and where fewer than five separate stretches of market are left, nothing is claimed at all.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np

RESAMPLES = 2_000
SEED = 20_260_101
SEPARATE_MIN = 5
Word = Literal["better", "worse", "no difference shown", "too little market"]


class Interval(msgspec.Struct, frozen=True):
    """95 % of the resampled means lie from `low` to `high`."""

    mean: float
    low: float
    high: float


class Spread(msgspec.Struct, frozen=True):
    """How single runs lie."""

    mean: float
    median: float
    p5: float
    p95: float


def spread(values: Sequence[float]) -> Spread:
    """At least one value."""
    p5, median, p95 = (float(one) for one in np.percentile(values, (5, 50, 95)))
    return Spread(float(np.mean(values)), median, p5, p95)


def interval(values: Sequence[float], block: int = 1) -> Interval:
    """Of the mean; `block`: how many neighbours share their market. At least one value."""
    count, length = len(values), max(1, min(block, len(values)))
    numbers, chance = np.asarray(values, dtype=float), np.random.default_rng(SEED)
    blocks = -(-count // length)
    starts = chance.integers(0, count, size=(RESAMPLES, blocks))
    picked = (starts[:, :, None] + np.arange(length)[None, None, :]) % count
    means = numbers[picked.reshape(RESAMPLES, -1)[:, :count]].mean(axis=1)
    low, high = (float(one) for one in np.percentile(means, (2.5, 97.5)))
    return Interval(float(numbers.mean()), low, high)


def word(found: Interval, separate: float) -> Word:
    """What a difference of costs supports: below zero is better. `separate`: how many stretches of market do not overlap."""
    if separate < SEPARATE_MIN:
        return "too little market"
    if found.high < 0:
        return "better"
    return "worse" if found.low > 0 else "no difference shown"
