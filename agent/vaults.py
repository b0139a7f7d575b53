"""The accounts of `[treasury]`: read from the settings, opened one at a time, each within the rules that name whom it may pay.

Part of the composition root, as `agent.wallet`. The kind of an account is the name of its file in `agent/keys/vaults`.
"""

import contextlib
import importlib
import pkgutil
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agent.config import KEYSTORE, Loaded, checked, custody_module, wallet_section
from agent.domain.errors import ConfigError, SecretError, SignerError
from agent.keys.accounts.kinds import Safe
from agent.keys.filing import LASTS_S, Means, without_windows
from agent.keys.secrets import Secrets
from agent.keys.spent import Spent
from agent.keys.tickets import Tickets
from agent.policies import treasury_policy_of
from agent.ports import Clock, Vault
from agent.wallet import Ask, close_wallet, open_wallet

VAULTS = Path(__file__).parent / "keys" / "vaults"
SPENT = "treasury-spent.jsonl"
KEYS_MAX = 16
Tier = Literal["hot", "warm", "cold"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class BoundSection(_Section):
    """How much of a coin a hot account holds, in whole coins as text. See docs/treasury.md."""

    coin: str
    hot: str
    cold: str
    floor: str = "0"
    target: str
    ceiling: str


class Treasury(_Section):
    """`accounts` are checked by the `Config` of their kind. `lasts_s`: how long a ticket waits for people."""

    lasts_s: int = Field(default=LASTS_S, ge=60, le=90 * 86_400)
    accounts: dict[str, dict[str, Any]] = Field(default={}, max_length=64)
    bounds: tuple[BoundSection, ...] = Field(default=(), strict=False, max_length=64)

    @model_validator(mode="after")
    def _names(self) -> Self:
        for bound in self.bounds:
            for name in (bound.hot, bound.cold):
                if name not in self.accounts:
                    raise ValueError(f"bounds name an account {name[:40]!r} that is not there; add it under [treasury.accounts]")
            if bound.hot == bound.cold:
                raise ValueError(f"the bounds of {bound.coin} move it from {bound.hot} to itself; name two accounts")
        return self


class _Place(_Section):
    """What every account has, whatever its kind. `keys`: sections as `[wallet]` has, of a Safe's owners that are reached here.

    `sender`: a section as `[wallet]` has, of the key that sends what the owners agreed to, and pays; without it `[wallet]` does.
    `modifier` and `role`: the role of Zodiac Roles over a Safe whose members can be taken out.
    """

    venue: str
    tier: Tier
    keys: tuple[dict[str, Any], ...] = Field(default=(), strict=False, max_length=KEYS_MAX)
    sender: dict[str, Any] | None = None
    modifier: str = ""
    role: str = ""


class AccountSection(NamedTuple):
    """An account of the settings. `config`: of its kind; `section`: the venue whose chain, coins and node it uses."""

    name: str
    kind: str
    tier: Tier
    address: str
    config: Any
    venue: str
    section: Any
    keys: tuple[Any, ...]
    sender: Any
    modifier: str
    role: str


class Opened(NamedTuple):
    """An account that can be asked."""

    account: AccountSection
    vault: Vault
    means: Means


# -- settings ----------------------------------------------------------------------------------------------------------


def treasury_of(loaded: Loaded) -> Treasury:
    """Raises ConfigError, also when there is none."""
    if loaded.settings.treasury is None:
        raise ConfigError(f"{loaded.path.name} has no [treasury]; add one, see docs/treasury.md")
    return checked(Treasury, loaded.settings.treasury, f"{loaded.path.name}: treasury")


def accounts_of(loaded: Loaded) -> dict[str, AccountSection]:
    """Every account by its name. Raises ConfigError for the first that is not right."""
    found = {name: _account(loaded, name, one) for name, one in treasury_of(loaded).accounts.items()}
    seen: dict[tuple[int, str], str] = {}
    for name, one in found.items():
        other = seen.setdefault((one.section.chain_id, one.address.lower()), name)
        if other != name:
            raise ConfigError(f"{loaded.path.name}: treasury.accounts.{other} and {name} are the same address; take one out")
    return found


def account_named(loaded: Loaded, name: str) -> AccountSection:
    """Raises ConfigError."""
    found = accounts_of(loaded)
    if name not in found:
        raise ConfigError(f"there is no account {name[:40]!r} in [treasury]; name one of {', '.join(found) or 'none'}")
    return found[name]


def vault_kinds() -> list[str]:
    return sorted(found.name for found in pkgutil.iter_modules([str(VAULTS)]))


def _account(loaded: Loaded, name: str, data: Mapping[str, Any]) -> AccountSection:
    where = f"{loaded.path.name}: treasury.accounts.{name}"
    common = {key: data[key] for key in ("venue", "tier", "keys", "sender", "modifier", "role") if key in data}
    place = checked(_Place, common, where)
    kind = str(data.get("kind", ""))
    if kind not in vault_kinds():
        raise ConfigError(f'{where}: there is no kind "{kind[:40]}"; it is one of {", ".join(vault_kinds())}')
    config = checked(_module(kind).Config, {key: one for key, one in data.items() if key not in common}, where)
    section = loaded.venues.get(place.venue)
    if section is None or not hasattr(section, "chain_id"):
        raise ConfigError(f"{where}: venue {place.venue[:40]!r} is no venue on a chain; name one whose chain and coins it shares")
    if (place.keys or place.sender) and kind != "safe":
        raise ConfigError(f"{where}: keys and sender are of a Safe; take them out")
    keys = tuple(wallet_section(one, f"{where}.keys[{at}]") for at, one in enumerate(place.keys))
    sender = None if place.sender is None else wallet_section(place.sender, f"{where}.sender")
    return AccountSection(
        name, kind, place.tier, config.address, config, place.venue, section, keys, sender, place.modifier, place.role
    )


def _module(kind: str) -> Any:
    return importlib.import_module(f"agent.keys.vaults.{kind}")


# -- opening -----------------------------------------------------------------------------------------------------------


def tickets_of(loaded: Loaded, clock: Clock) -> Tickets:
    """Every ticket of this home."""
    return Tickets(loaded.home / "tickets", clock)


@contextlib.asynccontextmanager
async def opened_vault(
    loaded: Loaded, clock: Clock, name: str, ask: Ask | None = None, *, with_wallet: bool = True
) -> AsyncIterator[Opened]:
    """One account, with the keys that reach it, while the context is open. Raises SecretError, SignerError or ChainError.

    `with_wallet`: whether `[wallet]` may send for it; not while an agent counts that key's transactions.
    """
    from agent.chains.rpc import connect

    account = account_named(loaded, name)
    policy = _policy(loaded, account, account.address)
    async with contextlib.AsyncExitStack() as closing:
        chain = await connect(account.section.rpc_url, account.section.chain_id, account.section.timeout_s)
        closing.push_async_callback(chain.close)
        signers = [await _key(loaded, clock, account, one, closing, ask) for one in account.keys]
        sender = account.sender or (loaded.wallet if with_wallet and account.kind in ("wallet", "safe") else None)
        executor = await _key(loaded, clock, account, sender, closing, ask) if sender is not None else None
        windows = any(rule.window_s for rule in loaded.settings.policy)
        spent = Spent(loaded.home / SPENT, clock) if windows else None
        lasts_s, tickets = treasury_of(loaded).lasts_s, tickets_of(loaded, clock)
        means = Means(name, account.kind, tickets, policy, chain, spent, lasts_s, account.tier)
        secrets = Secrets(loaded.path.parent)
        vault: Vault = await _module(account.kind).open_vault(means, account.config, signers, executor, secrets)
        closing.push_async_callback(vault.close)
        yield Opened(account, vault, means)


async def _key(
    loaded: Loaded, clock: Clock, account: AccountSection, section: Any, closing: contextlib.AsyncExitStack, ask: Ask | None
) -> Any:
    """A key with the account's own policy. Windows were charged with the ticket, so it counts none."""
    plain = loaded.model_copy(update={"wallet": section, "settings": loaded.settings.model_copy(update={"policy": ()})})
    signer = await open_wallet(plain, clock, ask)
    closing.push_async_callback(close_wallet, signer)
    if signer is None:
        raise SecretError("the settings have no key here; add one")
    signer.allow(without_windows(_policy(loaded, account, signer.address)))
    return signer


def policy_of_account(loaded: Loaded, account: AccountSection) -> Any:
    """What an account may do, whoever signs for it."""
    return _policy(loaded, account, account.address)


def _policy(loaded: Loaded, account: AccountSection, owner: str) -> Any:
    at = Safe(account.address, account.section.contracts.multi_send) if account.kind == "safe" else None
    return treasury_policy_of(loaded, account.venue, account.section, owner, at, account.modifier)


# -- the machine without a network -------------------------------------------------------------------------------------


def offline_signer(loaded: Loaded, clock: Clock, account: AccountSection, key: str, password: Any) -> Any:
    """A key of the keystore that signs for an account within these settings' own rules, and counts their windows by itself."""
    from agent.keys.keystore import Keystore

    if account.kind not in ("safe", "offline"):
        raise SignerError(f"{account.name} is of kind {account.kind}; nothing is signed for it offline")
    windows = any(rule.window_s for rule in loaded.settings.policy)
    spent = Spent(loaded.home / "offline-spent.jsonl", clock) if windows else None
    signer = Keystore(loaded.keystore_path).unlock(key, password, spent=spent)
    signer.allow(_policy(loaded, account, signer.address))
    return signer


# -- in the list of all keys -------------------------------------------------------------------------------------------


class VaultRow(NamedTuple):
    """As `agent.wallet.KeyRow`."""

    name: str
    address: str
    kind: str
    tier: str
    latency: str
    used_by: str
    health: str
    ms: float | None = None


def vault_rows(loaded: Loaded) -> list[VaultRow]:
    """Every account of the treasury, and every owner's key that it reaches. None of them is asked."""
    if loaded.settings.treasury is None:
        return []
    rows = []
    for name, one in accounts_of(loaded).items():
        rows.append(VaultRow(name, one.address, one.kind, one.tier, _module(one.kind).CUSTODY.latency, "treasury", ""))
        for section in one.keys:
            if section.kind == KEYSTORE:
                rows.append(VaultRow(section.keystore, "", KEYSTORE, "hot", "microseconds", name, ""))
            else:
                custody = custody_module(section.kind, name).CUSTODY
                rows.append(VaultRow(section.kind, section.address, section.kind, custody.tier, custody.latency, name, ""))
    return rows
