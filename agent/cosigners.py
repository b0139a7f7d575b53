"""The parties of shared keys, put together from settings: homes are made, keys set up, and the cosigner daemon served.

Part of the composition root. What needs the threshold engine is imported when it is asked for, and says how to build it where it is
missing.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.config import Loaded
from agent.domain.errors import ConfigError, SecretError
from agent.keys.secrets import Secret, read_secret
from agent.ports import Clock
from agent.wallet import allowed

if TYPE_CHECKING:
    from agent.keys.bounds import KeyPolicy
    from agent.keys.cosigner.home import Home
    from agent.keys.cosigner.setup import Led
    from agent.keys.spent import Spent

COSIGNER_SPENT = "cosigner-spent.jsonl"  # a count of its own, also where it shares its home with an agent
SCRYPT_N_SANDBOX = 2**12  # the sandbox's shares guard nothing; real ones take the vault's own default

Tell = Callable[[str], None]


def party_new(folder: Path, name: str, at: str, password: Secret, *, is_sandbox: bool = False) -> str:
    """Make a party's home with its identity; its entry for the group's file. Raises SecretError, SignerError without the engine."""
    from agent.keys.cosigner.home import Home
    from agent.keys.cosigner.vault import SCRYPT_N

    home = Home(folder, password, SCRYPT_N_SANDBOX if is_sandbox else SCRYPT_N)
    try:
        return home.make(name, at)
    finally:
        home.close()


def party_primes(folder: Path, password: Secret, file: Path | None, *, is_sandbox: bool = False) -> float:
    """Give the party primes for its set-up: from a file (one line of hex) or made here, a minute or two. Seconds that it took."""
    from agent.keys.cosigner.home import Home
    from agent.keys.cosigner.vault import SCRYPT_N
    from agent.keys.threshold import engine

    begun = time.perf_counter()
    home = Home(folder, password, SCRYPT_N_SANDBOX if is_sandbox else SCRYPT_N)
    try:
        home.open()
        if home.vault.has("primes"):
            raise SecretError(f"{folder} has primes already; they wait for its set-up")
        home.keep_primes(engine.Primes.generate() if file is None else _primes(read_secret(f"file:{file}")))
    finally:
        home.close()
    return time.perf_counter() - begun


def party_about(folder: Path, password: Secret) -> dict[str, Any]:
    """Who the party is and what it holds. Raises SecretError."""
    from agent.keys.cosigner.home import account

    with _opened(folder, password) as home:
        told: dict[str, Any] = {
            "home": str(folder),
            "fingerprint": home.identity.fingerprint,
            "has_primes": home.vault.has("primes"),
        }
        if not home.group_path.exists():
            return told | {"group": None, "address": None}
        group, ours = home.group()
        told |= {"group": group.name, "party": ours, "name": group.members[ours].name, "at": group.members[ours].at}
        if not home.has_share():
            return told | {"address": None}
        share = home.share(group)
        return told | {"address": account(share), "key_fingerprint": share.fingerprint.hex()}


def party_backup(folder: Path, password: Secret, path: Path) -> dict[str, Any]:
    """Copy identity and share, still sealed, into a file, and open that once more. Raises SecretError."""
    with _opened(folder, password) as home:
        home.backup(path)
    return {"backup": str(path), "bytes": path.stat().st_size}


def party_restore(folder: Path, password: Secret, path: Path, group_file: Path) -> dict[str, Any]:
    """Make a home from a backup, if it belongs to the group. Raises SecretError, ConfigError."""
    from agent.keys.cosigner.group import read_group
    from agent.keys.cosigner.home import account

    group = read_group(group_file)
    with _opened(folder, password) as home:
        share = home.restore(path, group)
        if group_file.resolve() != home.group_path.resolve():
            home.group_path.write_bytes(group_file.read_bytes())
    return {"home": str(folder), "party": share.party, "address": account(share), "key_fingerprint": share.fingerprint.hex()}


async def lead_set_up(folder: Path, password: Secret, clock: Clock, tell: Tell) -> "Led":
    """Make a key with the other parties of the home's group, which all run. Raises SecretError, SignerError."""
    from agent.keys.cosigner.audit import AuditLog
    from agent.keys.cosigner.setup import lead, made_with
    from agent.keys.memory import harden_process

    harden_process()
    with _opened(folder, password) as home:
        group, ours = home.group()
        if home.has_share():
            raise SecretError(f"{folder} has a share already; use a home of its own for another key")
        if not home.vault.has("primes") and not home.vault.has("prepared"):
            raise SecretError("this party has no primes for a set-up; make them: isthmus cosigner primes")
        log = AuditLog(home.audit_path, clock.now_ns)
        try:
            async with made_with(home, group, ours, log) as making:
                return await lead(making, home, group, ours, tell)
        finally:
            log.close()


@contextlib.asynccontextmanager
async def serving_cosigner(loaded: Loaded, clock: Clock, folder: Path, password: Secret) -> AsyncIterator[dict[str, Any]]:
    """Answer the other parties while the context is open, within the policies of these settings.

    Yields what there is to tell. Raises SecretError, SignerError, ConfigError when no venue of the settings trades with the key.
    """
    from agent.keys.cosigner.audit import AuditLog
    from agent.keys.cosigner.daemon import Daemon
    from agent.keys.cosigner.home import account
    from agent.keys.cosigner.link import listening
    from agent.keys.cosigner.signing import Signing
    from agent.keys.memory import harden_process

    granted = harden_process()
    with _opened(folder, password) as home:
        await asyncio.to_thread(home.open)
        group, ours = home.group()
        log = AuditLog(home.audit_path, clock.now_ns)
        daemon = None
        try:
            signing = None
            if home.has_share():
                share = await asyncio.to_thread(home.share, group)
                signing = Signing(share, group, *_bounds(loaded, clock, account(share)), log, clock)
            daemon = Daemon(home, group, ours, log, signing)
            async with listening(home.identity, group, ours, daemon.answer):
                yield {
                    "name": group.members[ours].name,
                    "at": group.members[ours].at,
                    "group": group.name,
                    "fingerprint": home.identity.fingerprint,
                    "address": account(signing.share) if signing is not None else None,
                    "chains": list(signing.chains) if signing is not None else [],
                    "core_dumps_off": granted.core_dumps_off,
                    "undumpable": granted.undumpable,
                }
        finally:
            if daemon is not None:
                await daemon.close()
            log.close()


def audit_lines(folder: Path) -> list[dict[str, Any]]:
    """What a party was asked and what it answered, after the chain was checked. Raises SignerError when it was changed."""
    import msgspec

    from agent.keys.cosigner.audit import read_audit

    return [{"seq": seq, "at_ns": at_ns} | msgspec.to_builtins(entry) for seq, at_ns, entry in read_audit(folder / "audit.jsonl")]


def _bounds(loaded: Loaded, clock: Clock, address: str) -> "tuple[dict[int, KeyPolicy], Spent | None]":
    from agent.policies import spent_of

    policies = {
        section.chain_id: allowed(loaded, venue, section, address, section.chain_id)
        for venue, section in loaded.venues.items()
        if getattr(section, "wallet", "").lower() == address.lower()
    }
    if not policies:
        raise ConfigError(f'no venue of {loaded.path.name} has wallet = "{address}", so this party may sign nothing; add one')
    return policies, spent_of(loaded, clock, file=COSIGNER_SPENT)


@contextlib.contextmanager
def _opened(folder: Path, password: Secret) -> "Iterator[Home]":
    from agent.keys.cosigner.home import Home

    home = Home(folder, password)
    try:
        yield home
    finally:
        home.close()


def _primes(text: Secret) -> Any:
    from agent.keys.threshold import engine

    try:
        return engine.Primes.from_bytes(bytearray.fromhex(text.reveal().strip()))
    except (ValueError, engine.ThresholdError):
        raise SecretError("the file holds no primes of this program; make them: isthmus cosigner primes") from None
