"""Everything that rests is taken back, at all venues at once: what stands behind `isthmus kill`.

It asks of the settings only what it needs, section by section, so that a mistake in one of them stops nothing else. One venue that
is down, slow or odd costs the others no time: each has its own connection and its own clock, and all end together.
"""

import asyncio
import contextlib
import importlib
import os
import re
import signal
import tomllib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import agent.venues
from agent.app import RealClock
from agent.config import FILE_BYTES_MAX, Loaded, Settings, venue_kinds, wallet_section
from agent.domain.errors import ConfigError, SecretError
from agent.domain.sweep import Sweep, Swept
from agent.ports import RequestKey, Signer
from agent.wallet import close_wallet, open_canceller, venue_key

SWEEP_S = 8.0  # every venue's time
GRACE_S = 0.5  # for one that does not even notice that its time is up
SLOW_S = 2.0  # what takes the whole processor (opening a wallet) waits so long for the other venues
INTERRUPTED = 130
VENUES = next(iter(agent.venues.__path__))
HOME = ".isthmus"
HOME_LINE = re.compile(r"""^[ \t]*home[ \t]*=[ \t]*["']([^"'\n]+)["']""", re.MULTILINE)
EMPTY: Mapping[str, Any] = MappingProxyType({})

Tell = Callable[[Swept], None]


class Place(NamedTuple):
    """What a kill needs to know of the settings. `trouble`: why there may be more venues than are listed here."""

    path: Path
    home: Path
    venues: Mapping[str, Any]
    wallet: Mapping[str, Any]
    trouble: str = ""


class Outcome(NamedTuple):
    rows: Sequence[Swept]
    is_interrupted: bool


def read_place(path: Path) -> Place:
    """As much of the settings as can be understood; the home folder always. Raises ConfigError only if there is no file to read."""
    try:
        with path.open("rb") as file:
            text = file.read(FILE_BYTES_MAX).decode(errors="replace")
    except OSError as error:
        raise ConfigError(f"nothing was blocked: cannot read {path} ({error.strerror}); name the settings with --config") from None
    trouble = ""
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        trouble = f"{path.name} is not valid TOML ({' '.join(str(error).split())[:80]}), so its venues are not known"
        named = HOME_LINE.search(text)
        data = {"home": named[1]} if named else {}
    home, venues = data.get("home", HOME), data.get("venues", {})
    if not isinstance(venues, dict):
        trouble, venues = f"{path.name}: venues is no table, so they are not known", {}
    where = path.resolve()
    wallet = data.get("wallet")
    folder = where.parent / (home if isinstance(home, str) else HOME)
    with contextlib.suppress(OSError, RuntimeError):  # a link to itself: the latch will say so
        folder = folder.resolve()
    return Place(where, folder, venues, wallet if isinstance(wallet, dict) else EMPTY, trouble)


def sweep(place: Place, names: Iterable[str], tell: Tell, *, is_dry: bool) -> Outcome:
    """Sweep the named venues, or all. `tell` hears of each as soon as it is done. Ends within SWEEP_S + GRACE_S.

    The first Ctrl-C stops waiting, the second ends the process at once.
    """
    loop = asyncio.new_event_loop()  # not asyncio.run: that would wait for threads which look up names or secrets
    try:
        return loop.run_until_complete(_all(place, tuple(dict.fromkeys(names)), tell, is_dry=is_dry))
    finally:
        loop.close()


async def _all(place: Place, names: Sequence[str], tell: Tell, *, is_dry: bool) -> Outcome:
    loop, stop, rows = asyncio.get_running_loop(), asyncio.Event(), list[Swept]()
    loop.add_signal_handler(signal.SIGINT, _interrupt, stop)
    end_s = loop.time() + SWEEP_S
    limits, quick = Sweep(round(end_s * 1_000), is_dry), asyncio.Event()
    opened: list[Any] = []
    wanted = names or tuple(place.venues)
    tasks = {asyncio.create_task(_one(place, name, limits, partial(_wallet, place, quick, opened))): name for name in wanted}
    chains = {task for task, name in tasks.items() if _is_chain(place.venues.get(name))}
    pending, stopped = set(tasks), asyncio.create_task(stop.wait())
    while pending and not stop.is_set() and (left_s := end_s + GRACE_S - loop.time()) > 0:
        done, _ = await asyncio.wait({*pending, stopped}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        for task in pending & done:
            rows.append(_row(tasks[task], task))
            tell(rows[-1])
        pending -= done
        if pending <= chains:
            quick.set()
    stopped.cancel()
    for task in pending:
        task.cancel()
    closing = (asyncio.create_task(close_wallet(wallet)) for wallet in opened)
    await asyncio.wait({*pending, stopped, *closing}, timeout=GRACE_S / 5)
    for task in pending:
        rows.append(Swept(tasks[task], 0, 0, None, note="it was not waited for any longer; run it again"))
        tell(rows[-1])
    return Outcome(rows, stop.is_set())


async def _one(place: Place, name: str, limits: Sweep, wallet: Callable[[Any], Awaitable[Signer]]) -> Swept:
    section = place.venues.get(name)
    if not isinstance(section, dict):
        known = ", ".join(place.venues) or "none"
        return Swept(name, 0, 0, None, note=f"the settings have no venue of this name; they have: {known[:200]}")
    kind = section.get("kind")
    if _is_chain(section):
        from agent.chains.take_back import take_back

        return await take_back(name, section, wallet, limits)
    if kind not in venue_kinds() or not (Path(VENUES) / kind / "cancel_all.py").is_file():
        return Swept(name, 0, 0, None, note=f"kind {str(kind)[:40]!r} cannot be cancelled from here: cancel at its own site")
    module = importlib.import_module(f"agent.venues.{kind}.cancel_all")
    swept: Swept = await module.cancel_all(name, section, partial(_key, place, name), limits)
    return swept


def _is_chain(section: object) -> bool:
    return isinstance(section, dict) and "rpc_url" in section


async def _key(place: Place, name: str, account: Any) -> RequestKey | None:
    """In a thread: a keyring may ask somebody, a file may lie on a disk that hangs."""
    loaded = Loaded(settings=Settings(), path=place.path, digest="", venues={})
    return await asyncio.to_thread(venue_key, loaded, name, account)


async def _wallet(place: Place, quick: asyncio.Event, opened: list[Any], chain: Any) -> Signer:
    """Opening it takes imports and half a second of computing: the exchanges go first, as long as that is quick."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(quick.wait(), SLOW_S)
    try:
        section = wallet_section(place.wallet, place.path.name)
    except ConfigError:
        raise SecretError("the settings have no [wallet] that could sign; correct that section") from None
    loaded = Loaded(settings=Settings(home=str(place.home)), path=place.path, digest="", venues={}, wallet=section)
    wallet = await open_canceller(loaded, RealClock(), chain.chain_id, chain.wallet, chain.gas_fee_max_gwei)
    opened.append(wallet)
    return wallet


def _row(name: str, task: "asyncio.Task[Swept]") -> Swept:
    """A mistake of ours at one venue hides the others as little as one of theirs."""
    error = task.exception()
    if error is None:
        return task.result()
    return Swept(name, 0, 0, None, note=f"stopped by {type(error).__name__}: cancel at its own site, and report this")


def _interrupt(stop: asyncio.Event) -> None:
    if stop.is_set():
        os._exit(INTERRUPTED)
    stop.set()
