"""A TWAP of half an hour in 1,000 slices, replayed over the seeded market with its pools, beside the half hour itself."""

import time

from agent import observe
from agent.domain.algo import new_algo
from agent.domain.amount import group_asset, parse_amount
from agent.domain.intent import Intent
from agent.simulation.replay.exchange_line import ACCOUNT
from agent.simulation.replay.run import replayed
from agent.simulation.replay.setting import SECOND, Setting
from benchmarks.measure import Result, Sample, beside

DURATION_S, SLICES = 1_800, 1_000


def run(duration_s: int = DURATION_S, slices: int = SLICES) -> list[Result]:
    observe.open_log(level="critical")
    duration_ns = duration_s * SECOND
    algo = new_algo("twap", duration_ns=duration_ns, interval_ns=duration_ns // slices)

    def wish(now_ns: int) -> Intent:
        quantity = parse_amount(str(slices / 5), group_asset("ETH"))
        return Intent("r1", ACCOUNT, "replay", "sell", quantity, "USDT", 500, now_ns + duration_ns + 60 * SECOND, algo=algo)

    results = []
    for what, chain in (("the exchange alone", None), ("with pools", Setting().chain)):
        begun = time.perf_counter()
        done = replayed(Setting(chain=chain), wish)
        spent_us = (time.perf_counter() - begun) * 1e6
        parent = done.state.parents[done.intent_id]
        note = f"{parent.slices} slices, {len(parent.orders)} orders, {len(done.rows)} records"
        results.append(
            beside(
                f"a TWAP of {duration_s} s, {what}", Sample(spent_us, None, 1), "real time", Sample(duration_s * 1e6, None, 1), note
            )
        )
    return results
