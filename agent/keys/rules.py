"""What the user allows a key to do, beyond the hard rules: the first rule that matches an act decides about it.

Rules see acts as they were read from the bytes (`policy`), so nobody can talk about one thing and sign another. An act that no
rule matches is refused. Without any rule, whatever the hard rules pass is allowed, but for coins that are paid to somebody and
a Safe's owners: those want a rule that names the act and whom it is to. Taking a transaction or a right back takes risk
away, so only a rule that names it can forbid it.
"""

from collections.abc import Mapping, Sequence

import msgspec

from agent.domain.amount import plain
from agent.domain.errors import SignerError
from agent.keys.bounds import ANY_AMOUNT, Act, Rule

FREE = frozenset({"take_back", "revoke"})  # they take risk away: allowed unless a rule names them
NAMED = frozenset({"transfer", "owners"})  # allowed by a rule that names the act and whom it is to, and by nothing else
COUNTED = frozenset({"swap", "transfer"})

Names = Mapping[str, tuple[str, int]]


class Verdict(msgspec.Struct, frozen=True):
    """What decided about an act. `rule` empty: none matched. `why` empty: it is allowed, as far as no window is used up."""

    act: Act
    rule: str
    why: str


class Charge(msgspec.Struct, frozen=True):
    """What an allowed swap takes out of a rule's window."""

    rule: Rule
    token: str
    units: int
    names: Names = {}

    def beyond(self, used: int) -> str:
        """Why the window cannot take it when `used` units of it are taken; empty if it can."""
        most = self.rule.window_max
        if most is None or used + self.units <= most:
            return ""
        told = [amount(units, self.token, self.names) for units in (most, max(most - used, 0), self.units)]
        return f"rule {self.rule.name!r} allows {told[0]} in {self.rule.window_s} s; {told[1]} are left, this takes {told[2]}"


def amount(units: int, token: str, names: Names) -> str:
    """In whole coins where the token is known by name."""
    if units == ANY_AMOUNT:
        return "an amount that the bytes do not say"
    symbol, decimals = names.get(token, (f"units of {token}", 0))
    return f"{plain(units, decimals)} {symbol}"


def judge(rules: Sequence[Rule], acts: Sequence[Act], names: Names | None = None) -> list[Verdict]:
    """One verdict for each act, in order. `names`: (symbol, decimals) of tokens, for the words."""
    return [_verdict(rules, act, names or {}) for act in acts]


def charged(rules: Sequence[Rule], acts: Sequence[Act], names: Names | None = None) -> list[Charge]:
    """What the acts take out of windows, one charge for each rule and token. SignerError for the first act that is not allowed."""
    found: dict[tuple[str, str], Charge] = {}
    for act, verdict in zip(acts, judge(rules, acts, names), strict=True):
        if verdict.why:
            raise SignerError(f"policy: {verdict.why}")
        rule = next((one for one in rules if one.name == verdict.rule), None)
        if rule is not None and rule.window_max is not None and act.kind in COUNTED:
            key = rule.name, act.given
            before = found[key].units if key in found else 0
            found[key] = Charge(rule, act.given, before + act.amount, names or {})
    return list(found.values())


def deciding(rules: Sequence[Rule], act: Act) -> Rule | None:
    """The first rule that matches. It depends on the kind of act, the contract and the tokens, never on an amount."""
    return next((one for one in rules if _matches(one, act)), None)


def _verdict(rules: Sequence[Rule], act: Act, names: Names) -> Verdict:
    rule = deciding(rules, act)
    if rule is None and (act.kind in FREE or (not rules and act.kind not in NAMED)):
        return Verdict(act, "", "")
    if rule is None:
        return Verdict(act, "", f"no rule allows to {_words(act, names)}; add one under [[policy]]")
    if rule.effect == "deny":
        return Verdict(act, rule.name, f"rule {rule.name!r} forbids to {_words(act, names)}")
    if rule.amount_max is not None and act.amount > rule.amount_max:
        most, much = (amount(units, act.given, names) for units in (rule.amount_max, act.amount))
        return Verdict(act, rule.name, f"rule {rule.name!r} allows {most} at once, this is {much}")
    return Verdict(act, rule.name, "")


def _matches(rule: Rule, act: Act) -> bool:
    if act.kind in FREE:
        return act.kind in rule.kinds
    if act.kind in NAMED and rule.effect == "allow" and not (act.kind in rule.kinds and rule.to):
        return False
    pairs = (
        (rule.kinds, act.kind),
        (rule.contracts, act.contract),
        (rule.given, act.given),
        (rule.received, act.received),
        (rule.to, act.to),
    )
    return all(not wanted or found in wanted for wanted, found in pairs)


def told(act: Act, names: Names) -> str:
    """One line for people who are to agree: what it does, with the amount."""
    if act.kind == "transfer":
        return f"transfer {amount(act.amount, act.given, names)} to {act.to}"
    return _words(act, names)


def _words(act: Act, names: Names) -> str:
    given, received = (names.get(token, (token, 0))[0] for token in (act.given, act.received))
    match act.kind:
        case "swap":
            return f"swap {given} for {received}"
        case "approve" | "permit":
            return f"{act.kind} {given}"
        case "anchor":
            return "anchor the journal's head"
        case "take_back":
            return "take a transaction back"
        case "transfer":
            return f"transfer {given} to {act.to}"
        case "revoke":
            return f"take back what {act.to} may do with {given or act.contract}"
        case "owners":
            return f"make {act.to} an owner of {act.contract}"
