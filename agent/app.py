"""The composition root: the one module that sees both sides. It reads the settings and puts the parts together."""

import asyncio
import contextlib
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from agent import __version__, observe
from agent.config import Loaded, Settings, venue_module
from agent.domain.errors import ConfigError, JournalError
from agent.engine.loop import Engine
from agent.gateways import local
from agent.journal.sqlite import SqliteJournal
from agent.keys.keystore import Keystore
from agent.keys.local import LocalSigner, assert_fast_backend
from agent.keys.memory import harden_process
from agent.keys.policy import swap_policy
from agent.keys.secrets import Secret, read_secret
from agent.keys.venue_key import VenueKey
from agent.market.view import Market
from agent.ports import Signer, Tools, Venue

LOOPBACK = ("127.0.0.1", "localhost", "::1")
RECONCILE_EVERY_S = 30
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class RealClock:
    """Wall-clock time for facts and deadlines."""

    def now_ns(self) -> int:
        return time.time_ns()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def is_local(section: Any) -> bool:
    """Whether a venue's section names only this machine."""
    urls = [getattr(section, name, None) for name in ("url", "ws_url", "rpc_url")]
    named = [str(url) for url in urls if url]
    return bool(named) and all(urlsplit(url).hostname in LOOPBACK for url in named)


def open_wallet(loaded: Loaded, ask: Callable[[str], Secret] | None = None) -> LocalSigner | None:
    """Unlock the wallet that the settings name. Raises SecretError with the fix."""
    wallet = loaded.settings.wallet
    if wallet is None:
        return None
    password = (ask or _no_prompt)(wallet.keystore) if wallet.password == "ask" else secret_of(loaded, wallet.password)
    return Keystore(loaded.keystore_path).unlock(wallet.keystore, password)


def secret_of(loaded: Loaded, reference: str) -> Secret:
    """Read a reference of the settings; a relative `file:` is relative to the settings file."""
    kind, _, rest = reference.partition(":")
    if kind == "file" and rest and not Path(rest).is_absolute():
        reference = f"file:{loaded.path.parent / rest}"
    return read_secret(reference)


def _no_prompt(name: str) -> Secret:
    raise ConfigError(f'wallet.password = "ask" needs a terminal; use env:, file: or keyring: for {name}')


def open_journal(loaded: Loaded, *, read_only: bool = False) -> SqliteJournal:
    if read_only and not loaded.journal_path.exists():
        raise JournalError(f"there is no journal yet at {loaded.journal_path}; `isthmus run` or `isthmus order submit` begins one")
    loaded.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    return SqliteJournal(loaded.journal_path, loaded.settings.durability, read_only=read_only)


@contextlib.asynccontextmanager
async def open_venues(loaded: Loaded, wallet: LocalSigner | None) -> AsyncIterator[tuple[dict[str, Venue], dict[str, Signer]]]:
    """Connect every venue of the settings, each with the signer that its orders need."""
    venues: dict[str, Venue] = {}
    signers: dict[str, Signer] = {}
    try:
        for name, section in loaded.venues.items():
            key = venue_key(loaded, name, section)
            venues[name] = await venue_module(section.kind, name).connect(name, section, Tools(RealClock(), key))
            profile = venues[name].profile
            if profile.chain_id is None:
                if key is not None:
                    signers[name] = key
            elif wallet is not None:
                _allow(wallet, loaded.settings, section, profile.chain_id)
                signers[name] = wallet
        yield venues, signers
    finally:
        for venue in venues.values():
            await venue.close()


def venue_key(loaded: Loaded, name: str, section: Any) -> VenueKey | None:
    if not getattr(section, "secret", ""):
        return None
    return VenueKey(f"{name}:{section.api_key[:6]}", name, section.api_key, secret_of(loaded, section.secret))


def _allow(wallet: LocalSigner, settings: Settings, section: Any, chain_id: int) -> None:
    """What the wallet's key may sign for this venue: swaps through its router, and exact approvals to Permit2."""
    tokens = frozenset(token.address for token in section.tokens)
    limits = settings.risk
    fee_max = int(limits.gas_fee_cap_gwei.partition(".")[0] or 0) * 10**9 + 10**9
    contracts = section.contracts
    wallet.allow(
        swap_policy(chain_id, wallet.address, contracts.universal_router, contracts.permit2, tokens, fee_max, limits.gas_limit_max)
    )


@contextlib.asynccontextmanager
async def running_engine(
    loaded: Loaded, *, live: bool = False, ask: Callable[[str], Secret] | None = None
) -> AsyncIterator[Engine]:
    """A running engine with its desk socket and schedules. Leaving the context stops it cleanly; SIGTERM does the same."""
    harden_process()
    assert_fast_backend()
    if not loaded.venues:
        raise ConfigError(f"{loaded.path.name} names no venue; add a [venues.NAME] section")
    journal = open_journal(loaded)
    try:
        wallet = open_wallet(loaded, ask)
        async with open_venues(loaded, wallet) as (venues, signers):
            remote = frozenset(name for name, section in loaded.venues.items() if not is_local(section))
            engine = Engine(
                journal,
                venues,
                signers,
                RealClock(),
                loaded.rules(live=live),
                Market(),
                loaded.settings.account,
                live=remote,
                run_id=uuid.uuid4().hex,
                version=__version__,
                config_hash=loaded.digest,
            )
            async with _working(engine, loaded.home):
                yield engine
    finally:
        journal.close()


@contextlib.asynccontextmanager
async def _working(engine: Engine, home: Path) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, lambda: asyncio.ensure_future(engine.stop("signal")))
    scheduler = AsyncIOScheduler()
    scheduler.add_job(engine.watch, "interval", seconds=RECONCILE_EVERY_S, max_instances=1, coalesce=True)
    scheduler.start()
    task = asyncio.create_task(engine.run())
    try:
        async with local.serve(engine, home):
            yield
    finally:
        scheduler.shutdown(wait=False)
        await engine.stop("leaving")
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)
        await task


def log_to(loaded: Loaded) -> None:
    """Logs go to a file in the home folder, so that the terminal shows only what the user asked for."""
    loaded.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    observe.open_log(loaded.home / "isthmus.log")


def default_config() -> Path:
    """Where the settings are when nobody says: here, or in the folder of a demo that was interrupted here."""
    named = os.environ.get("ISTHMUS_CONFIG")
    for path in (Path(named) if named else Path("isthmus.toml"), Path(".isthmus/demo/isthmus.toml")):
        if path.exists() or named:
            return path
    return Path("isthmus.toml")
