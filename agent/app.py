"""The composition root: the one module that sees both sides. It reads the settings and puts the parts together.

Adapters are imported when they are put together and not before, so that `--help` answers at once.
"""

import asyncio
import contextlib
import functools
import importlib.util
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agent import __version__
from agent.config import Journal, Loaded, load, venue_module
from agent.domain.errors import ConfigError, RefusedError, UsageError
from agent.gateways import local
from agent.keys.secrets import Secret, read_secret
from agent.ports import Signer, Tools, Venue
from agent.roles import check_role
from agent.wallet import Ask, opened_wallet, secret_of, signer_for, signs_fast, venue_key

if TYPE_CHECKING:
    from agent.engine.loop import Engine
    from agent.journal.latch import FileLatch
    from agent.journal.postgres import PostgresJournal
    from agent.journal.sqlite import SqliteJournal
    from agent.keys.local import LocalSigner
    from agent.keys.remote import RemoteSigner
    from agent.routing.search import Search

__all__ = ["RealClock", "Secret", "read_secret", "running_engine"]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
NEEDS_PSYCOPG = "a journal in PostgreSQL needs psycopg; run: pip install 'isthmus[postgres]'"
PLACES = (Path("isthmus.toml"), Path(".isthmus/isthmus.toml"), Path(".isthmus/demo/isthmus.toml"))

TICKS = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # the first counts also while the machine sleeps


class RealClock:
    """Wall-clock time for facts and deadlines, which never goes back.

    It follows the wall clock forward. When that is set back, it runs on by itself: otherwise every pause that is measured with it
    would stand still for so long, questions about orders in doubt and the dead-man switch among them.
    """

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.clock_gettime_ns(TICKS)

    def now_ns(self) -> int:
        ticks_ns = time.clock_gettime_ns(TICKS)
        self._offset_ns = max(self._offset_ns, time.time_ns() - ticks_ns)
        return ticks_ns + self._offset_ns

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


# -- settings ----------------------------------------------------------------------------------------------------------


def default_config() -> Path:
    """Where the settings are when nobody says: here, then of a sandbox here, then of a demo that was interrupted here."""
    named = os.environ.get("ISTHMUS_CONFIG")
    if named:
        return Path(named)
    return next((path for path in PLACES if path.exists()), PLACES[0])


def settings_of(config: Path | None, *, with_venues: bool = True, log: str = "isthmus.log") -> Loaded:
    """Load the settings (see `config.load`) and send logs to a file in their home folder: the terminal shows what was asked for."""
    from agent import observe

    loaded = load(config or default_config(), with_venues=with_venues)
    _make_home(loaded.home)
    observe.open_log(loaded.home / log)
    return loaded


def is_local(section: Any) -> bool:
    """Whether a venue's section names only this machine."""
    urls = [getattr(section, name, None) for name in ("url", "ws_url", "rpc_url", "rpc_url_second", "private_rpc_url")]
    named = [str(url) for url in urls if url]
    return bool(named) and all(urlsplit(url).hostname in LOOPBACK for url in named)


def has_account(section: Any) -> bool:
    """Whether a venue's section names an account, so that there are balances to see."""
    return bool(getattr(section, "secret", "") or getattr(section, "wallet", ""))


def live_venues(loaded: Loaded) -> list[str]:
    """Venues that are not on this machine: what trades there is real money."""
    return [name for name, section in loaded.venues.items() if not is_local(section)]


def refuse_unarmed(loaded: Loaded, *, live: bool) -> None:
    """Raises RefusedError before anything is connected, when live venues are named and not armed twice: in the file and here."""
    found = live_venues(loaded)
    if found and not (live and loaded.settings.armed):
        fix = "say --live" if loaded.settings.armed else f"set armed = true in {loaded.path.name} and say --live"
        raise RefusedError(f"refused: VENUE_NOT_ARMED: {', '.join(found)} would trade real money; {fix}")


def _make_home(home: Path) -> None:
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(f"cannot make the home folder {home}: {error.strerror}; choose another `home`") from None


# -- the journal -------------------------------------------------------------------------------------------------------


def open_journal(loaded: Loaded) -> "SqliteJournal | PostgresJournal":
    """For the one writer: the file in the home folder, or the desk's database if the settings name one.

    Raises UsageError if another agent runs here; JournalError if one elsewhere holds the desk, after `journal.wait_s`.
    """
    from agent.journal.sqlite import SqliteJournal

    if local.is_running(loaded.home):
        raise UsageError(f"an agent is already running in {loaded.home}; stop it, or give this one another `home`")
    _make_home(loaded.home)
    if loaded.settings.journal is not None:
        return _desk_journal(loaded, loaded.settings.journal)
    return SqliteJournal(loaded.journal_path, loaded.settings.durability)


def open_reader(loaded: Loaded) -> "SqliteJournal | PostgresJournal | None":
    """For looking, beside an agent that may run. None where there is no journal yet. Raises JournalError."""
    from agent.journal.sqlite import SqliteJournal

    if loaded.settings.journal is None:
        return SqliteJournal(loaded.journal_path, read_only=True) if loaded.journal_path.exists() else None
    try:
        from agent.journal.postgres import NoJournalError
    except ImportError:
        raise ConfigError(NEEDS_PSYCOPG) from None
    try:
        return _desk_journal(loaded, loaded.settings.journal, read_only=True)
    except NoJournalError:
        return None


def _desk_journal(loaded: Loaded, section: Journal, *, read_only: bool = False) -> "PostgresJournal":
    try:
        from agent.journal.postgres import PostgresJournal
    except ImportError:
        raise ConfigError(NEEDS_PSYCOPG) from None
    return PostgresJournal(
        section.url,
        loaded.settings.durability,
        desk=section.desk or loaded.settings.account,
        password=secret_of(loaded, section.password).reveal if section.password else None,
        lease_s=section.lease_s,
        wait_s=section.wait_s,
        read_only=read_only,
    )


def kill_latch(loaded: Loaded) -> "FileLatch":
    """What `isthmus kill` puts in the way of every order of this home."""
    from agent.journal.latch import FileLatch

    return FileLatch(loaded.home)


# -- the parts together ------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def open_venues(
    loaded: Loaded, wallet: "LocalSigner | RemoteSigner | None"
) -> AsyncIterator[tuple[dict[str, Venue], dict[str, Signer]]]:
    """Connect every venue of the settings, each with the signer that its orders need."""
    from agent.journal.notes import Notes

    venues: dict[str, Venue] = {}
    signers: dict[str, Signer] = {}
    try:
        for name, section in loaded.venues.items():
            key = venue_key(loaded, name, section)
            tools = Tools(RealClock(), key, loaded.settings.account, Notes(loaded.home / f"{name}.notes.json"))
            venues[name] = await venue_module(section.kind, name).connect(name, section, tools)
            profile = venues[name].profile
            if profile.chain_id is None:
                if key is not None:
                    signers[name] = key
            elif wallet is not None:
                await check_role(loaded, name, section, tools)
                signers[name] = signer_for(loaded, wallet, name, section, profile.chain_id, venues[name])
        yield venues, signers
    finally:
        for venue in venues.values():
            await venue.close()


@contextlib.asynccontextmanager
async def running_engine(
    loaded: Loaded, *, live: bool = False, ask: Ask | None = None, is_idle: bool = False, is_long: bool = False
) -> "AsyncIterator[Engine]":
    """A running engine with its desk socket and schedules. Leaving the context stops it cleanly; so do SIGTERM and Ctrl-C.

    It refuses to start while the state cannot be explained; `is_idle`, to explain it, starts anyway and trades nothing. `is_long`:
    it is worth to compile first.
    Ctrl-C is passed on as KeyboardInterrupt when everything has been stopped in order.
    """
    from agent.engine.loop import Engine
    from agent.keys.memory import harden_process
    from agent.market.view import Market
    from agent.routing import kernel

    if not loaded.venues:
        raise ConfigError(f"{loaded.path.name} names no venue; add a [venues.NAME] section")
    harden_process()
    signs_fast()
    heard: list[int] = []
    journal = open_journal(loaded)
    try:
        async with opened_wallet(loaded, RealClock(), ask) as wallet, open_venues(loaded, wallet) as (venues, signers):
            engine = Engine(
                journal,
                venues,
                signers,
                RealClock(),
                loaded.rules(live=live),
                Market(),
                loaded.settings.account,
                live=frozenset(live_venues(loaded)),
                run_id=uuid.uuid4().hex,
                version=__version__,
                config_hash=loaded.digest,
                latch=kill_latch(loaded),
                is_strict=not is_idle,
                is_idle=is_idle,
                new_search=await _compiled() if is_long else lambda: kernel.search,
            )
            async with _working(engine, loaded, heard):
                yield engine
    finally:
        journal.close()
    if signal.SIGINT in heard:
        raise KeyboardInterrupt


async def _compiled() -> "Callable[[], Search]":
    """The everyday search, compiled where the extra [fast] is installed. The first time takes seconds, later ones half of one."""
    from agent.routing import kernel

    if importlib.util.find_spec("numba") is None:
        return lambda: kernel.search
    from agent.routing import fast

    await asyncio.to_thread(fast.warm)
    return lambda: fast.Arrays().search


@contextlib.asynccontextmanager
async def _working(engine: "Engine", loaded: Loaded, heard: list[int]) -> AsyncIterator[None]:
    from apscheduler.schedulers.asyncio import AsyncIOScheduler

    from agent.engine.sampling import markets_worked
    from agent.journal.bars import keep_bars

    loop = asyncio.get_running_loop()

    stops: set[asyncio.Task[None]] = set()

    def stop(number: int) -> None:
        heard.append(number)
        stops.add(loop.create_task(engine.stop(signal.Signals(number).name)))

    scheduler = AsyncIOScheduler()
    scheduler.add_job(engine.remind, "interval", seconds=loaded.settings.reconcile.position_check_interval_secs, coalesce=True)
    task = asyncio.create_task(engine.run())
    worked = functools.partial(markets_worked, engine.state)
    keeping = asyncio.create_task(keep_bars(loaded.home, engine.world.market, worked, RealClock()))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    scheduler.start()
    try:
        async with local.serve(engine, loaded.home):
            yield
    finally:
        scheduler.shutdown(wait=False)
        await engine.stop("leaving")
        try:
            await task
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
