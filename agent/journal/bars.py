"""What markets did while orders were worked, in files beside the journal: an analysis afterwards looks at them.

One file for each market, one line for each second, from a while before an order is accepted until a while after its end. They are
opinions: no money depends on them, nothing waits for the disk, and a file that cannot be written is as good as none. A file that is
full makes room for a new one, and the oldest of a market is forgotten.
"""

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import quote

import msgspec

from agent.market.bars import SECOND_NS, Bar
from agent.market.view import Market
from agent.ports import Clock

FOLDER = "bars"  # in the home of the agent
AROUND_NS = 90 * SECOND_NS  # so long before and after
FILE_BYTES_MAX = 16 << 20  # more than a day without a pause
OLDER_KEPT = 4
LINE_BYTES_MAX = 4_096

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Bar).decode


class BarKeeper:
    """Owns the files of one agent. `keep` writes the seconds that are over; `close` also the one that is not."""

    def __init__(self, home: Path) -> None:
        self._folder = home / FOLDER
        self._written_s: dict[str, int] = {}  # market -> the newest second in its file
        self._until_ns: dict[str, int] = {}  # market -> how long its seconds are still wanted

    def keep(self, market: Market, live: Iterable[str], now_ns: int) -> None:
        """`live`: the markets in which an order is worked now."""
        for name in live:
            self._until_ns[name] = now_ns + AROUND_NS
        self._write(market, now_ns, now_ns // SECOND_NS)

    def close(self, market: Market, now_ns: int) -> None:
        self._write(market, now_ns, now_ns // SECOND_NS + 1)

    def _write(self, market: Market, now_ns: int, end_s: int) -> None:
        for name in [name for name, until_ns in self._until_ns.items() if until_ns < now_ns]:
            del self._until_ns[name]
        for name in self._until_ns:
            since_s = max(self._written_s.get(name, 0) + 1, (now_ns - AROUND_NS) // SECOND_NS)
            bars = [bar for bar in market.bars(name).since(since_s * SECOND_NS) if since_s <= bar.start_s < end_s]
            if bars:
                with contextlib.suppress(OSError):
                    _append(self._folder / file_name(name), bars)
                self._written_s[name] = bars[-1].start_s


async def keep_bars(home: Path, market: Market, live: Callable[[int], Iterable[str]], clock: Clock) -> None:
    """Once a second, until it is cancelled; then what is left. `live`: the markets in which an order is worked at a time."""
    keeper = BarKeeper(home)
    try:
        while True:
            await clock.sleep(1.0)
            now_ns = clock.now_ns()
            keeper.keep(market, live(now_ns), now_ns)
    finally:
        now_ns = clock.now_ns()
        keeper.keep(market, live(now_ns), now_ns)
        keeper.close(market, now_ns)


def read_bars(home: Path, market: str, from_ns: int = 0, to_ns: int = 1 << 63) -> list[Bar]:
    """The bars that were kept of a market and touch the time between, in the order written. Lines that are none are passed over."""
    newest = home / FOLDER / file_name(market)
    found: list[Bar] = []
    for path in (*(_older(newest, age) for age in range(OLDER_KEPT, 0, -1)), newest):
        with contextlib.suppress(OSError), path.open("rb") as file:
            while line := file.readline(LINE_BYTES_MAX):
                with contextlib.suppress(msgspec.MsgspecError):
                    bar = _decode(line)
                    if (bar.start_s + 1) * SECOND_NS > from_ns and bar.start_s * SECOND_NS < to_ns:
                        found.append(bar)
    return found


def file_name(market: str) -> str:
    """`ETH/USDT` -> `ETH-USDT.jsonl`; what a file name should not hold is spelt out."""
    return f"{quote(market.replace('/', '-'), safe='')}.jsonl"


def _append(path: Path, bars: Iterable[Bar]) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    if path.exists() and path.stat().st_size >= FILE_BYTES_MAX:
        for age in range(OLDER_KEPT, 0, -1):
            younger = _older(path, age - 1) if age > 1 else path
            if younger.exists():
                younger.replace(_older(path, age))
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, 2)
            if file.read(1) != b"\n":  # whoever wrote before was killed in the middle of a line
                file.write(b"\n")
        file.write(b"".join(_encode(bar) + b"\n" for bar in bars))


def _older(path: Path, age: int) -> Path:
    return path.with_name(f"{path.name}.{age}")
