"""The keys that the settings name: made, opened wherever they lie, and allowed exactly what their venues need.

Part of the composition root: it reads the settings and puts keys and policies together. A key in the keystore is opened in this
process; every other kind is reached through its file in `agent/keys/custody`, which is imported when it is named and not before.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from agent.config import KEYSTORE, Loaded, Wallet, custody_module, venue_module
from agent.domain.errors import ConfigError, IsthmusError, SecretError, SignerError
from agent.keys.secrets import Secret, Secrets
from agent.ports import Clock, Rehearsing, Signer, Tools, Venue

if TYPE_CHECKING:
    from agent.keys.bounds import KeyPolicy
    from agent.keys.keystore import Keystore
    from agent.keys.local import LocalSigner
    from agent.keys.remote import Key, RemoteSigner
    from agent.keys.venue_key import VenueKey

SCRYPT_N_SANDBOX = 2**12  # the sandbox's key guards nothing; a real wallet takes the keystore's own default
CANCEL_GAS_LIMIT_MAX = 1_000_000  # a transfer takes 21,000; some roll-ups count their data in
SIGNER_SPENT = "signer-spent.jsonl"  # a count of its own, also where it shares its home with the agent
ASK = "ask"
HERE: Final = ("hot", "microseconds")  # tier and latency of a key in this process
Ask = Callable[[str], str]  # (name of a key) -> the password that a person typed


# -- the keystore ------------------------------------------------------------------------------------------------------


def wallet_new(folder: Path, name: str, password: Secret, *, is_sandbox: bool = False) -> str:
    """Make a key in the keystore `folder`; its address. Raises SecretError."""
    from agent.keys.keystore import SCRYPT_N, Keystore

    return Keystore(folder, SCRYPT_N_SANDBOX if is_sandbox else SCRYPT_N).new(name, password)


def wallet_import(folder: Path, name: str, key: Secret, password: Secret) -> str:
    """Take a private key in; its address. Raises SecretError."""
    return _keystore(folder).import_key(name, key, password)


def wallet_list(folder: Path) -> dict[str, str]:
    """name -> address of every key in the keystore. Nothing is unlocked. Raises SecretError."""
    return {one.name: one.address for one in _keystore(folder).list_keys()}


def _keystore(folder: Path) -> "Keystore":
    from agent.keys.keystore import Keystore

    return Keystore(folder)


# -- the wallet --------------------------------------------------------------------------------------------------------


async def open_wallet(loaded: Loaded, clock: Clock, ask: Ask | None = None) -> "LocalSigner | RemoteSigner | None":
    """The key of `[wallet]`, wherever it lies; None without that section. Raises SecretError or SignerError with the fix."""
    from agent.policies import spent_of

    section = loaded.wallet
    if section is None:
        return None
    spent = spent_of(loaded, clock)
    if isinstance(section, Wallet):
        password = Secret((ask or _no_prompt)(section.keystore)) if section.password == ASK else secret_of(loaded, section.password)
        return await asyncio.to_thread(_keystore(loaded.keystore_path).unlock, section.keystore, password, clock, spent=spent)
    from agent.keys.remote import RemoteSigner

    return RemoteSigner(await open_key(loaded), clock, spent=spent)


async def open_key(loaded: Loaded) -> "Key":
    """The far end of a wallet that lies elsewhere. Raises SecretError or SignerError with the fix."""
    section = loaded.wallet
    key: Key = await custody_module(section.kind, "wallet").open_key(section.kind, section, Secrets(loaded.path.parent))
    return key


async def close_wallet(wallet: "LocalSigner | RemoteSigner | None") -> None:
    """Every later request is refused."""
    closing = None if wallet is None else wallet.close()
    if closing is not None:
        await closing


@contextlib.asynccontextmanager
async def opened_wallet(loaded: Loaded, clock: Clock, ask: Ask | None = None) -> "AsyncIterator[LocalSigner | RemoteSigner | None]":
    """`open_wallet` while the context is open."""
    wallet = await open_wallet(loaded, clock, ask)
    try:
        yield wallet
    finally:
        await close_wallet(wallet)


async def wallet_address(loaded: Loaded, clock: Clock) -> str:
    """Open the wallet that the settings name, and close it again; its address. Raises SecretError or SignerError with the fix."""
    async with opened_wallet(loaded, clock) as wallet:
        if wallet is None:
            raise SecretError("the settings have no [wallet] section; add one")
        return wallet.address


async def open_canceller(
    loaded: Loaded, clock: Clock, chain_id: int, address: str, gas_fee_max_gwei: int
) -> "LocalSigner | RemoteSigner":
    """The wallet, for one chain and one purpose: to send nothing to itself, which takes back what waits. Raises SecretError."""
    from agent.keys.bounds import NO_HOOKS, KeyPolicy

    wallet = await open_wallet(loaded, clock)
    if wallet is None or wallet.address.lower() != address.lower():
        await close_wallet(wallet)
        raise SecretError(f"the wallet of the settings is not {address}; correct [wallet] or the venue's section")
    wallet.allow(
        KeyPolicy(chain_id, wallet.address, NO_HOOKS, NO_HOOKS, frozenset(), {}, gas_fee_max_gwei * 10**9, CANCEL_GAS_LIMIT_MAX)
    )
    return wallet


def allowed(loaded: Loaded, name: str, section: Any, address: str, chain_id: int) -> "KeyPolicy":
    """What the wallet's key may sign for this venue. Raises ConfigError when the venue is for another account."""
    from agent.policies import policy_of

    if address.lower() != section.wallet.lower():
        raise ConfigError(f"venues.{name}.wallet is {section.wallet}, [wallet] opens {address}; make them the same")
    return policy_of(loaded, name, section, address, chain_id)


def signer_for(
    loaded: Loaded, wallet: "LocalSigner | RemoteSigner", name: str, section: Any, chain_id: int, venue: Venue
) -> Signer:
    """Whoever signs for this venue: the wallet's key, within its policy, for itself or for the account with the tokens.

    Where the settings say so and the venue can, every transaction is run before it is signed.
    """
    from agent.keys.rehearsal import Rehearsal
    from agent.policies import account_of

    policy = allowed(loaded, name, section, wallet.address, chain_id)
    wallet.allow(policy, Rehearsal(policy, venue.rehearse) if isinstance(venue, Rehearsing) and section.simulate else None)
    account = account_of(section)
    if account is None:
        return wallet
    from agent.keys.accounts.signer import acting

    return acting(wallet, account, section.contracts.audit_anchor)


async def delegate_code(clock: Clock, name: str, section: Any) -> str:
    """The hash of the code that the wallet's address would run, as it is now. Raises ChainError."""
    pins: dict[str, str] = await venue_module(section.kind, name).pins_of(section, Tools(clock))
    return pins[section.delegate]


async def delegate(loaded: Loaded, clock: Clock, name: str, section: Any, ask: Ask | None, *, pinned: str, is_undone: bool) -> str:
    """Let the wallet's address run the code of the venue's delegate (EIP-7702), or none any more; the transaction, once mined.

    Raises ConfigError where that code is not the one that was looked at (`pinned`), SignerError for a key that does not lie here,
    ChainError when the node does not take it.
    """
    from agent.chains.rpc import connect
    from agent.keys.local import LocalSigner
    from agent.keys.sending import fees, mined, number

    chain = await connect(section.rpc_url, section.chain_id, section.timeout_s)
    try:
        if not is_undone and await delegate_code(clock, name, section) != pinned:
            raise ConfigError(
                f"{section.delegate} will run as this wallet, and its code is not pinned as it is now; look at it, then put its"
                " hash into the settings: isthmus policy pin"
            )
        async with opened_wallet(loaded, clock, ask) as wallet:
            if not isinstance(wallet, LocalSigner):
                raise SignerError(
                    "only a key in the keystore signs such an authorization here; use another wallet program for this"
                )
            policy = allowed(loaded, name, section, wallet.address, section.chain_id)
            wallet.allow(policy)
            fee, tip = await fees(chain, policy.gas_fee_max)
            nonce = await number(chain, "eth_getTransactionCount", wallet.address, "pending")
            signed = wallet.sign_delegation(section.chain_id, nonce, fee, tip, is_undone=is_undone)
        await chain.send_raw(signed.raw)
        await mined(chain, clock, signed.tx_hash)
    finally:
        await chain.close()
    return signed.tx_hash


def venue_key(loaded: Loaded, name: str, section: Any) -> "VenueKey | None":
    """The API key's secret half, behind an object that only signs; None for a venue that is watched. Raises SecretError."""
    from agent.keys.venue_key import VenueKey

    if not getattr(section, "secret", ""):
        return None
    return VenueKey(f"{name}:{section.api_key[:6]}", name, section.api_key, secret_of(loaded, section.secret))


def secret_of(loaded: Loaded, reference: str) -> Secret:
    """Read a reference of the settings; a relative `file:` is relative to the settings file."""
    return Secrets(loaded.path.parent).read(reference)


def signs_fast() -> None:
    """Raises SignerError if the native signing code is missing."""
    from agent.keys.local import assert_fast_backend

    assert_fast_backend()


def _no_prompt(name: str) -> str:
    raise SecretError(f'wallet.password = "ask" needs a terminal; use env:, file: or keyring: for {name}')


# -- all keys ----------------------------------------------------------------------------------------------------------


class KeyRow(NamedTuple):
    """One key as it is listed. `health`: why it cannot sign now, empty if it can; `ms`: how long it took to find out."""

    name: str
    address: str
    kind: str
    tier: str
    latency: str
    used_by: str
    health: str
    ms: float | None = None


async def key_rows(loaded: Loaded) -> list[KeyRow]:
    """Every key in the keystore and every one that the settings name. A key far away is asked how it is; none is unlocked."""
    from agent.vaults import vault_rows

    section, folder = loaded.wallet, loaded.keystore_path
    used = section.keystore if isinstance(section, Wallet) else None
    found = wallet_list(folder) if folder.exists() else {}
    rows = [KeyRow(name, address, KEYSTORE, *HERE, "wallet" if name == used else "", "") for name, address in found.items()]
    if used is not None and used not in found:
        rows.append(KeyRow(used, "", KEYSTORE, *HERE, "wallet", f"it is not in the keystore; make it: isthmus keys new {used}"))
    if section is not None and used is None:
        rows.append(await _far_row(loaded))
    rows += [KeyRow(*row) for row in vault_rows(loaded)]
    rows += [_venue_row(loaded, name, venue) for name, venue in loaded.venues.items() if getattr(venue, "secret", "")]
    return rows


async def _far_row(loaded: Loaded) -> KeyRow:
    section = loaded.wallet
    custody = custody_module(section.kind, "wallet").CUSTODY
    begun, health = time.perf_counter(), ""
    try:
        key = await open_key(loaded)
        try:
            begun = time.perf_counter()  # without what is done once: connecting, importing a cloud's library
            health = await key.health()
        finally:
            await key.close()
    except IsthmusError as error:
        health = str(error)
    ms = (time.perf_counter() - begun) * 1_000
    return KeyRow(section.kind, section.address, section.kind, custody.tier, custody.latency, "wallet", health, ms)


def _venue_row(loaded: Loaded, name: str, section: Any) -> KeyRow:
    health = ""
    try:
        venue_key(loaded, name, section)
    except IsthmusError as error:
        health = str(error)
    return KeyRow(name, "", "api key", *HERE, name, health)


# -- the signer process ------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def serving_signer(loaded: Loaded, clock: Clock, name: str, path: Path, password: Secret) -> AsyncIterator[dict[str, Any]]:
    """Hold the key `name` of the keystore for agents that ask at the socket `path`, within the policies of these settings.

    Yields what there is to tell about it. Raises SecretError, ConfigError when no venue of the settings trades with this key.
    """
    from agent.keys.memory import harden_process
    from agent.keys.signer_process import serve
    from agent.policies import spent_of

    granted = harden_process()
    signs_fast()
    spent = spent_of(loaded, clock, file=SIGNER_SPENT)
    signer = await asyncio.to_thread(_keystore(loaded.keystore_path).unlock, name, password, clock, spent=spent)
    try:
        chains = []
        for venue, section in loaded.venues.items():
            if getattr(section, "wallet", "").lower() == signer.address.lower():
                signer.allow(allowed(loaded, venue, section, signer.address, section.chain_id))
                chains.append(section.chain_id)
        if not chains:
            raise ConfigError(
                f'no venue of {loaded.path.name} has wallet = "{signer.address}", so key {name} may sign nothing; add one'
            )
        async with serve(signer, path, granted, chains):
            told = {"core_dumps_off": granted.core_dumps_off, "undumpable": granted.undumpable, "locked": signer.is_locked}
            yield {"name": name, "address": signer.address, "socket": str(path), "chains": chains, **told}
    finally:
        signer.close()
