"""From a market tick to a signed order on the wire, in process: decode, book, view, route, gate, journal, signature, send.

The whole engine with its journal and keys over 5 books, 5 v2 and 4 v3 pools (the pools alone for orders on chain), beside
NautilusTrader's live engines from a quote to the client's `_submit_order`, which neither route, nor journal, nor sign. One tick at
a time, on a loop that does nothing else: uvloop for both, as `isthmus run` has it with the extra [fast].
"""

import asyncio
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path

from agent import observe
from agent.routing import kernel
from agent.routing.search import Search
from benchmarks.desk import Desk, Mode
from benchmarks.measure import Result, Sample, beside, sample
from benchmarks.peers.child import peer

ROUNDS, CALLS = 16, 220  # the first round warms up; 3,300 ticks are left
NAUTILUS = "NautilusTrader, tick to submit"
CASES: tuple[tuple[str, Mode, str], ...] = (
    ("exchange order, journal `process`", "exchange", "process"),
    ("batch on chain, journal `process`", "chain", "process"),
    ("exchange order, journal `power`", "exchange", "power"),
)


def run(rounds: int = ROUNDS, calls: int = CALLS) -> list[Result]:
    observe.open_log(level="critical")
    new_search, word = _search()
    missing: dict[str, str] = {}
    with peer("nautilus", missing) as nautilus, tempfile.TemporaryDirectory() as folder:
        theirs: list[int] = []
        ours: dict[str, Sample] = {}
        for what, mode, durability in CASES:

            def turn() -> None:
                if nautilus is not None:
                    theirs.extend(nautilus.ask("ticks", count=calls, loop="uvloop")["ns"])

            ours[what] = sample(_run(_taken(Path(folder), mode, durability, new_search, rounds, calls, turn)))
    found = sample(theirs) if theirs else None
    return [beside(f"{what}{word}", one, NAUTILUS, found, missing.get("nautilus", "")) for what, one in ours.items()]


async def _taken(
    folder: Path, mode: Mode, durability: str, new_search: Callable[[], Search], rounds: int, calls: int, turn: Callable[[], None]
) -> list[int]:
    """Nanoseconds of every tick; between our rounds the peer has its turn."""
    desk = Desk(folder, mode, durability, new_search)  # type: ignore[arg-type]
    await desk.open()
    taken: list[int] = []
    for number in range(rounds):
        times = await desk.turn(calls)
        turn()
        if number:
            taken += times
    await desk.close()
    return taken


def _run(work: Coroutine[object, object, list[int]]) -> list[int]:
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(work)


def _search() -> tuple[Callable[[], Search], str]:
    try:
        from agent.routing import fast
    except ImportError:
        return (lambda: kernel.search), ", plain"
    fast.warm()
    return (lambda: fast.Arrays().search), ""
