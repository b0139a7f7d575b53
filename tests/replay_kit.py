"""What tests of replays share: small tapes, orders, and worlds whose moments are written by hand."""

import asyncio
import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from agent.domain.algo import new_algo
from agent.domain.amount import group_asset, parse_amount
from agent.domain.errors import JournalError
from agent.domain.instrument import Side
from agent.domain.intent import Intent
from agent.engine.state import State
from agent.journal.codec import Row
from agent.simulation.drill.faults import Weather
from agent.simulation.drill.play import PlayJournal
from agent.simulation.exchange.flow import MarketModel
from agent.simulation.exchange.liquidity import Action, Quote, Take
from agent.simulation.exchange.matching import BUY, SELL
from agent.simulation.exchange.tape import TapeWriter
from agent.simulation.replay.run import Wish, World, ended, hand_in
from agent.simulation.replay.setting import SECOND, Latency, Setting

TAPE_START_NS = 1_700_000_000 * SECOND
AT_ONCE = Latency(0, 0, 0)
ALONE = Setting(chain=None, maker_fee_pips=200)
BID, ASK = 268_380, 268_381  # ticks of the books that are written by hand
LOT = 10_000  # lots of one ether


def twap(quantity: str = "8", seconds: int = 20, interval_s: float = 2, side: Side = "sell", **parameters: int | str) -> Wish:
    """An order that an algorithm works, from whenever it is handed in."""
    algo = new_algo("twap", duration_ns=seconds * SECOND, interval_ns=int(interval_s * SECOND), **parameters)
    return wish(quantity, side, seconds + 30, algo=algo)


def wish(quantity: str, side: Side = "sell", seconds: int = 10, **fields: object) -> Wish:
    plain = Intent("r7", "main", "replay", side, parse_amount(quantity, group_asset("ETH")), "USDT", 100, 0)
    return lambda now_ns: msgspec.structs.replace(plain, deadline_ns=now_ns + seconds * SECOND, **fields)


def by_hand(*moments: tuple[float, Sequence[Action]]) -> Iterator[tuple[int, Sequence[Action]]]:
    """What happens when, in seconds after the beginning; it begins with a book of 5 ETH at each of ten levels a side."""
    levels = [(BUY, BID - away) for away in range(10)] + [(SELL, ASK + away) for away in range(10)]
    yield TAPE_START_NS, [Quote(side, ticks, 5 * LOT) for side, ticks in levels]
    for at_s, actions in moments:
        yield TAPE_START_NS + int(at_s * SECOND), actions


def write_tape(path: Path, seconds: int, seed: int = 3) -> Path:
    """Recorded frames, as of Binance spot, of a seeded market: a snapshot, then changes and trades each 100 ms."""
    model, number = MarketModel(seed, 2683.80, 0.01, 0.0001), 1
    book: dict[tuple[int, int], int] = {}
    with TapeWriter(path) as tape:
        for step in range(seconds * 10 + 1):
            at_ns, changed = TAPE_START_NS + step * SECOND // 10, dict[tuple[int, int], int]()
            for action in model.step():
                if isinstance(action, Take) and step:
                    trade = {
                        "s": "ETHUSDT",
                        "p": _price(action.price_ticks),
                        "q": _size(action.size_lots),
                        "m": action.side == SELL,
                    }
                    tape.write(at_ns, json.dumps({"stream": "ethusdt@trade", "data": trade}))
                elif isinstance(action, Quote):
                    changed[action.side, action.price_ticks] = action.size_lots
            book |= changed
            told = {"b": _rows(changed, BUY), "a": _rows(changed, SELL)}
            if step:
                diff = {"s": "ETHUSDT", "U": number + 1, "u": number + 1} | told
                tape.write(at_ns, json.dumps({"stream": "ethusdt@depth@100ms", "data": diff}))
                number += 1
            else:
                tape.write(at_ns, json.dumps({"lastUpdateId": number, "bids": _rows(book, BUY), "asks": _rows(book, SELL)}))
    return path


def _rows(levels: dict[tuple[int, int], int], side: int) -> list[list[str]]:
    return [[_price(ticks), _size(lots)] for (of, ticks), lots in levels.items() if of == side]


def _price(ticks: int) -> str:
    return f"{ticks // 100}.{ticks % 100:02}"


def _size(lots: int) -> str:
    return f"{lots // LOT}.{lots % LOT:04}"


def mortal(rows: list[Row]) -> PlayJournal:
    """A journal that can die with its agent."""
    return PlayJournal(rows, Weather.calm(), lambda _: None, lambda _: "")


async def lived(
    setting: Setting, work: Wish, kills_s: Sequence[float], settles_s: float = 0
) -> tuple[World, State, Intent, list[Row]]:
    """The order worked by one agent after the other, each killed so many seconds after it was handed in.

    `settles_s`: how long after its end the journal is held against the venues.
    """
    world, rows = World(setting), list[Row]()
    intent = work(world.clock.now_ns() + SECOND)
    world.fund(intent)
    world.begin()
    begun_ns = 0
    for kill_s in [*sorted(kills_s), None]:
        journal = mortal(rows)
        engine = world.engine(journal)
        running = asyncio.create_task(engine.run())
        await engine.ready()
        if not begun_ns:
            begun_ns = world.clock.now_ns()
            await engine.priced(intent.market)
            await hand_in(engine, intent)
        if kill_s is None:
            if engine.state.parents[intent.intent_id].is_live:
                await ended(engine, intent)
            if settles_s:
                await asyncio.sleep(settles_s)
                assert await engine.reconcile() == []
            await engine.stop()
            await running
            break
        await asyncio.sleep(max(begun_ns + kill_s * SECOND - world.clock.now_ns(), 0) / SECOND)
        journal.die("killed")
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError, JournalError):
            await running
    await world.end()
    return world, engine.state, intent, rows
