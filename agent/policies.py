"""What the settings allow the wallet's key: the hard rules of each venue on a chain, and the user's own rules on top.

Here the symbols and whole coins that people write become addresses and units, once, at the start.
"""

from typing import Any

import msgspec

from agent.config import Loaded, PolicyRule
from agent.domain.amount import parse_units
from agent.domain.errors import ConfigError, SignerError, UsageError
from agent.domain.plan import Call, Calls, TypedData
from agent.keys.accounts.kinds import Delegated, Kind, Role, Safe, UserOps
from agent.keys.accounts.roles import role_key
from agent.keys.bounds import DEADLINE_AHEAD_S, Act, KeyPolicy, Rule, norm
from agent.keys.policy import act_of, check_calls, check_safe_tx, check_typed, swap_policy
from agent.keys.rules import Verdict, charged, judge
from agent.keys.spent import Spent
from agent.keys.transfers import NATIVE, treasury_policy
from agent.ports import Clock

GWEI = 10**9
AHEAD_S = DEADLINE_AHEAD_S


def policy_of(loaded: Loaded, name: str, section: Any, owner: str, chain_id: int) -> KeyPolicy:
    """What `owner`'s key may sign for a venue: swaps through its router, exact approvals to Permit2, heads of the journal.

    Raises ConfigError for a rule that names a token or a venue that the settings do not know.
    """
    risk, contracts = loaded.settings.risk, section.contracts
    fee_max = int(risk.gas_fee_cap_gwei.partition(".")[0] or 0) * GWEI + GWEI
    tokens = frozenset(token.address for token in section.tokens)
    return swap_policy(
        chain_id,
        owner,
        contracts.universal_router,
        contracts.permit2,
        tokens,
        fee_max,
        risk.gas_limit_max,
        contracts.audit_anchor,
        rules_of(loaded, name, section),
        {token.address.lower(): (token.symbol, token.decimals) for token in section.tokens},
        account_of(section),
    )


def treasury_policy_of(loaded: Loaded, name: str, section: Any, owner: str, account: Safe | None, modifier: str = "") -> KeyPolicy:
    """What a treasury's account may do on a venue's chain: pay whom the rules name, and take rights away."""
    return treasury_policy(
        section.chain_id,
        owner,
        section.contracts.permit2,
        frozenset(token.address for token in section.tokens),
        section.gas_fee_max_gwei * GWEI,
        loaded.settings.risk.gas_limit_max,
        rules_of(loaded, name, section),
        {token.address.lower(): (token.symbol, token.decimals) for token in section.tokens},
        account,
        modifier,
    )


def account_of(section: Any) -> Kind | None:
    """The account that the wallet's key acts for at a venue; None where it acts for itself."""
    contracts = section.contracts
    match section.account:
        case "safe":
            return Safe(section.safe, contracts.multi_send)
        case "role":
            return Role(section.safe, section.modifier, role_key(section.role), contracts.multi_send)
        case "erc4337":
            return UserOps(section.smart_account, contracts.entry_point, version=section.entry_point_version)
        case "eip7702":
            return Delegated(section.wallet, section.delegate)
        case _:
            return None


def rules_of(loaded: Loaded, name: str, section: Any) -> tuple[Rule, ...]:
    """The user's rules as one venue sees them, in order. A rule about tokens that this venue has not does not concern it."""
    rules = loaded.settings.policy
    _refuse_unknown(loaded)
    concerned = [rule for rule in rules if not rule.venues or name in rule.venues]
    found = (_rule(rule, section, _people(loaded)) for rule in concerned)
    kept = tuple(rule for rule in found if rule is not None)
    if rules and not kept:  # without rules everything would be allowed, and with some nothing is that none of them allows
        return (Rule("nothing here", "deny"),)
    return kept


def spent_of(loaded: Loaded, clock: Clock, *, read_only: bool = False, file: str = "spent.jsonl") -> Spent | None:
    """What went through windows, where a rule has one; kept in `file`, which has one owner. SignerError when it is damaged."""
    if not any(rule.window_s for rule in loaded.settings.policy):
        return None
    return Spent(loaded.home / file, clock, read_only=read_only)


class _Coin(msgspec.Struct, frozen=True):
    address: str
    decimals: int


def _people(loaded: Loaded) -> dict[str, str]:
    """name -> address of the treasury's accounts, as rules name them in `to`."""
    accounts = (loaded.settings.treasury or {}).get("accounts", {})
    found = accounts.items() if isinstance(accounts, dict) else ()
    return {name: str(one.get("address", "")).lower() for name, one in found if isinstance(one, dict)}


def _payee(name: str, people: dict[str, str], where: str) -> str:
    try:
        return norm(people.get(name, name))
    except SignerError:
        known = ", ".join(sorted(people)) or "none"
        raise ConfigError(f"{where}: {name[:48]!r} in to is neither an address nor an account of [treasury]: {known}") from None


def _rule(rule: PolicyRule, section: Any, people: dict[str, str]) -> Rule | None:
    coin = _Coin(NATIVE, section.native.decimals)
    tokens = {section.native.symbol: coin} | {token.symbol: _Coin(token.address, token.decimals) for token in section.tokens}
    given, received = ([tokens[one] for one in names if one in tokens] for names in (rule.give, rule.receive))
    if (rule.give and not given) or (rule.receive and not received):
        return None
    units = [
        parse_units(text, given[0].decimals, f"rule {rule.name!r}") if text else None for text in (rule.amount_max, rule.window_max)
    ]
    return Rule(
        rule.name,
        rule.effect,
        frozenset(rule.acts),
        given=frozenset(token.address.lower() for token in given),
        received=frozenset(token.address.lower() for token in received),
        amount_max=units[0],
        window_s=rule.window_s,
        window_max=units[1],
        to=frozenset(_payee(one, people, f"rule {rule.name!r} of [[policy]]") for one in rule.to),
    )


def _refuse_unknown(loaded: Loaded) -> None:
    rules, sections = loaded.settings.policy, loaded.venues
    chains = [section for section in sections.values() if hasattr(section, "tokens")]
    known = {token.symbol for section in chains for token in section.tokens} | {section.native.symbol for section in chains}
    names = [rule.name for rule in rules]
    for rule in rules:
        where = f"{loaded.path.name}: rule {rule.name!r} of [[policy]]"
        if names.count(rule.name) > 1:
            raise ConfigError(f"{where} is there twice; give each its own name, which its window is counted by")
        for symbol in (*rule.give, *rule.receive):
            if symbol not in known:
                raise ConfigError(
                    f"{where}: no venue lists a token {symbol[:16]!r}; name one of {', '.join(sorted(known)) or 'none'}"
                )
        for venue in rule.venues:
            if venue not in sections:
                raise ConfigError(f"{where}: there is no venue {venue[:40]!r}; name one of {', '.join(sorted(sections))}")


# -- explaining --------------------------------------------------------------------------------------------------------


def read_request(raw: bytes) -> Calls | TypedData:
    """A request as people keep it, in JSON: a call (chain_id, to, data, value, gas_limit, gas_fee_max) or EIP-712 typed data.

    Raises UsageError for anything else; whole numbers may be given as text.
    """
    try:
        found = msgspec.json.decode(raw)
        if isinstance(found, dict) and "primaryType" in found:
            types = {name: fields for name, fields in found["types"].items() if name != "EIP712Domain"}
            return TypedData("check", found["domain"], types, found["primaryType"], found["message"])
        call = msgspec.convert(found, type=_Request, strict=False)
        data = bytes.fromhex(call.data.removeprefix("0x"))
    except (msgspec.MsgspecError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UsageError(f"this is no request that can be checked ({str(error)[:120]}); see docs/policy.md for the form") from None
    target = (Call(call.to, data, call.value),)
    return Calls("check", call.chain_id, target, (), 0, call.gas_limit, call.gas_fee_max, 0)


class Finding(msgspec.Struct, frozen=True):
    """What a key would say to a request. `refused` empty: it would sign."""

    verdicts: tuple[Verdict, ...]
    refused: str


def judged(policy: KeyPolicy, request: Calls | TypedData, spent: Spent | None, now_s: int) -> Finding:
    """Without a key, and without setting anything aside. `now_s`: unix seconds, for deadlines."""
    try:
        acts = _acts(policy, request, now_s + AHEAD_S)
    except SignerError as error:
        return Finding((), str(error).removeprefix("policy: "))
    verdicts = tuple(judge(policy.rules, acts, policy.names))
    refused = next((one.why for one in verdicts if one.why), "")
    for charge in charged(policy.rules, acts, policy.names) if not refused else ():
        refused = refused or charge.beyond(spent.used(charge.rule.name, charge.token) if spent else 0)
    return Finding(verdicts, refused)


def _acts(policy: KeyPolicy, request: Calls | TypedData, latest_s: int) -> tuple[Act, ...]:
    if isinstance(request, Calls):
        return check_calls(policy, request, latest_s).acts
    if request.primary == "SafeTx":
        return check_safe_tx(policy, request, latest_s)
    return (act_of(check_typed(policy, request, latest_s), policy),)


class _Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    chain_id: int
    to: str
    data: str = "0x"
    value: int = 0
    gas_limit: int = 21_000
    gas_fee_max: int = 0
