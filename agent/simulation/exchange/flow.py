"""A seeded model of an exchange's background flow: a ladder of orders around a moving price, and trades that arrive at random.

The constants are fitted to recorded Binance spot ETHUSDT (2024-08-08 23:54-24:00 UTC; public example data of hftbacktest, MIT):
346 s, 3,434 book updates, 6,106 prints by 1,929 takers (prints with the same time and side are one taker). Method, each:

* price: per 100 ms the mid stood still with probability 0.91; the moves are taken as Laplace, scaled so that the standard
  deviation over 1 s is the measured 1.12 bps (kurtosis over 1 s: 11 measured, 9.6 in the model);
* depth: mean size per tick of 0.01 by distance from the best price, over both sides; share of ticks occupied; size at the touch
  from its median and mean, log-normal. Sizes of single levels are log-normal, narrower than measured (log-sd 1.2, not 2.9);
* takers: mean count per 100 ms, apart for moving and still intervals; nine of ten trade in the direction of the move; sizes by
  the measured quantiles, interpolated in the logarithm;
* spread: one tick in 99.6 % of updates; 31 levels change per 100 ms.

Not modelled: impact of clients on the price (what they take is back within 100 ms near the touch and within seconds further
out), hours of the day, memory in the direction of trades. Floats are opinions here; sizes become lots by rounding.
"""

from __future__ import annotations

import bisect
import math
import random
from typing import Final

from agent.simulation.exchange.liquidity import Action, Quote, Take
from agent.simulation.exchange.matching import BUY, SELL

STEP_MS: Final = 100
REFERENCE_MID: Final = 2683.8
REFERENCE_TICK_BPS: Final = 0.01 / REFERENCE_MID * 1e4

MOVE_SHARE: Final = 0.0903
MOVE_RMS_BPS: Final = 1.118 / math.sqrt(10 * MOVE_SHARE)
SPREAD_WIDE_SHARE: Final = 0.0044
SPREAD_WIDE_TICKS: Final = (3, 6, 7, 9, 11)

# (up to this distance in bps, mean size per reference tick in ETH, share of ticks occupied)
DEPTH: Final = ((5.0, 1.94, 0.38), (10.0, 2.40, 0.43), (25.0, 3.03, 0.32), (40.0, 1.0, 0.33))
LEVEL_LOG_SD: Final = 1.2
TOUCH_MEDIAN: Final = 10.1
TOUCH_LOG_SD: Final = 0.67
TOUCH_REDRAW_SHARE: Final = 0.3
REFRESHED_LEVELS: Final = 25
NEAR_LEVELS: Final = 12

TAKERS_STILL: Final = 0.278
TAKERS_MOVING: Final = 3.42
TAKERS_AGREE_SHARE: Final = 0.90
# (quantile, size of a taker in ETH)
TAKER_SIZES: Final = (
    (0.0, 0.0004), (0.05, 0.002), (0.1, 0.0027), (0.2, 0.0049), (0.3, 0.0087), (0.4, 0.0168), (0.5, 0.041), (0.6, 0.108),
    (0.7, 0.2998), (0.8, 0.8), (0.9, 2.1177), (0.95, 3.8858), (0.98, 8.6114), (0.99, 14.4044), (0.995, 19.8338), (1.0, 500.0),
)  # fmt: skip
_QUANTILES: Final = [quantile for quantile, _ in TAKER_SIZES]
_RANGE_BPS: Final = DEPTH[-1][0]


class MarketModel:
    """One symbol's background flow. The same seed gives the same actions, whatever the clients do.

    `mid` and `tick` are in quote per base, `lot` in base. For a symbol other than the fitted one, sizes keep their *value* and
    distances their basis points.
    """

    def __init__(self, seed: int, mid: float, tick: float, lot: float) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a model, not a secret
        self._tick_bps = tick / mid * 1e4
        self._grid_ticks = max(1, round(REFERENCE_TICK_BPS / self._tick_bps))
        self._reference_ticks = self._grid_ticks * self._tick_bps / REFERENCE_TICK_BPS
        self._lots_per_eth = REFERENCE_MID / mid / lot
        self._range_ticks = max(20 * self._grid_ticks, round(_RANGE_BPS / self._tick_bps))
        bid = max(1, math.floor(mid / tick + 1e-9))
        self._fair_ticks = bid
        self._best = [bid, bid + 1]
        self._touch = [self._draw_touch(), self._draw_touch()]
        self._levels: tuple[dict[int, int], dict[int, int]] = ({}, {})
        self._is_new = True

    def step(self, now_ns: int = 0) -> list[Action]:  # noqa: ARG002 - the model's time is its steps
        """What the world does in the next 100 ms: trades against the book as it is, then the book's next shape."""
        move = self._draw_move()
        actions, taken_eth = self._takes(move)
        self._fair_ticks = max(self._range_ticks + 2, self._fair_ticks + move)
        wanted: dict[tuple[int, int], int] = {}
        self._move(BUY, self._fair_ticks, wanted)
        self._move(SELL, self._fair_ticks + self._draw_spread(), wanted)
        near = (NEAR_LEVELS + int(taken_eth / DEPTH[0][1])) * self._grid_ticks
        for side in (BUY, SELL):
            self._refresh(side, near, wanted)
        actions.extend(Quote(side, price, lots) for (side, price), lots in wanted.items())
        return actions

    def _draw_move(self) -> int:
        if self._is_new or self._random.random() >= MOVE_SHARE:
            return 0
        size = self._random.expovariate(math.sqrt(2) / (MOVE_RMS_BPS / self._tick_bps))
        return max(1, round(size)) * self._random.choice((-1, 1))

    def _draw_spread(self) -> int:
        return self._random.choice(SPREAD_WIDE_TICKS) if self._random.random() < SPREAD_WIDE_SHARE else 1

    def _takes(self, move: int) -> tuple[list[Action], float]:
        """Takers of this step, and the size of the largest in ETH."""
        actions: list[Action] = []
        largest = 0.0
        count = 0 if self._is_new else self._poisson(TAKERS_MOVING if move else TAKERS_STILL)
        for _ in range(count):
            share_buying = 0.5
            if move:
                share_buying = TAKERS_AGREE_SHARE if move > 0 else 1 - TAKERS_AGREE_SHARE
            side = BUY if self._random.random() < share_buying else SELL
            size = self._draw_taker()
            largest = max(largest, size)
            limit = self._fair_ticks + (self._range_ticks if side == BUY else -self._range_ticks)
            actions.append(Take(side, max(1, limit), self._lots(size)))
        return actions, largest

    def _move(self, side: int, best: int, wanted: dict[tuple[int, int], int]) -> None:
        """Bring one side to a new best price: clear what it overtook or left behind, fill what it uncovered."""
        levels, away, old = self._levels[side], (-1 if side == BUY else 1), self._best[side]
        if best != old or self._is_new:
            for price in [p for p in levels if not 0 < (p - best) * away <= self._range_ticks]:
                del levels[price]
                wanted[side, price] = 0
            if best != old:
                wanted[side, old] = 0
            last = best + away * self._range_ticks if self._is_new else old
            for price in range(best + away, last + away, away):
                self._draw_level(side, price, best, wanted)
        if best != old or self._random.random() < TOUCH_REDRAW_SHARE:
            self._touch[side] = self._draw_touch()
        self._best[side] = best
        wanted[side, best] = self._touch[side]
        if side == SELL:
            self._is_new = False

    def _refresh(self, side: int, near_ticks: int, wanted: dict[tuple[int, int], int]) -> None:
        """Redraw a few levels anywhere, and restore those near the touch from what was taken."""
        levels, away, best = self._levels[side], (-1 if side == BUY else 1), self._best[side]
        for _ in range(REFRESHED_LEVELS):
            self._draw_level(side, best + away * self._random.randint(1, self._range_ticks), best, wanted)
        for price in range(best + away, best + away * near_ticks, away):
            if price in levels:
                wanted[side, price] = levels[price]

    def _draw_level(self, side: int, price: int, best: int, wanted: dict[tuple[int, int], int]) -> None:
        price -= price % self._grid_ticks
        if price == best or not 0 < abs(price - best) <= self._range_ticks or (price > best) == (side == BUY):
            return
        distance_bps = abs(price - best) * self._tick_bps
        _, density, occupied = next((band for band in DEPTH if distance_bps <= band[0]), DEPTH[-1])
        lots = 0
        if self._random.random() < occupied:
            median = density * self._reference_ticks / occupied * math.exp(-(LEVEL_LOG_SD**2) / 2)
            lots = self._lots(self._random.lognormvariate(math.log(median), LEVEL_LOG_SD))
        if lots:
            self._levels[side][price] = lots
        else:
            self._levels[side].pop(price, None)
        wanted[side, price] = lots

    def _draw_touch(self) -> int:
        return self._lots(self._random.lognormvariate(math.log(TOUCH_MEDIAN), TOUCH_LOG_SD))

    def _draw_taker(self) -> float:
        """A taker's size in ETH from the measured quantiles."""
        share = self._random.random()
        index = max(1, bisect.bisect_left(_QUANTILES, share))
        (low, small), (high, large) = TAKER_SIZES[index - 1], TAKER_SIZES[index]
        return float(small * (large / small) ** ((share - low) / (high - low)))

    def _lots(self, eth: float) -> int:
        return max(1, round(eth * self._lots_per_eth))

    def _poisson(self, mean: float) -> int:
        """Knuth's method: fine for small means."""
        limit, product, count = math.exp(-mean), self._random.random(), 0
        while product > limit:
            product *= self._random.random()
            count += 1
        return count
