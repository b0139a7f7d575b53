"""`policy`: what the wallet's key may sign, and what it would say to a request. Nothing is unlocked for it."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from agent.app import RealClock, settings_of
from agent.cli.options import Config, Json, group, run_async
from agent.cli.show import line, out, print_json
from agent.cli.tables import new_table
from agent.config import Loaded, PolicyRule, venue_module
from agent.domain.amount import plain
from agent.domain.errors import SignerError, UsageError
from agent.domain.plan import Calls, TypedData
from agent.policies import AHEAD_S, Finding, judged, policy_of, read_request, spent_of
from agent.ports import Tools

commands = group("What the wallet's key may sign, and what it would say to a request.")

FILE_BYTES_MAX = 1 << 20
ANY = "any"

Request = Annotated[Path, typer.Argument(help="A call or typed data in JSON; `-` reads it from standard input.")]


@commands.command("show")
def show(config: Config = None, as_json: Json = False) -> None:
    """What is allowed at each venue on a chain, and the rules of the settings in the order in which they are asked."""
    loaded = settings_of(config)
    places = {name: _hard(loaded, name, section) for name, section in _on_chain(loaded).items()}
    if as_json:
        print_json({"venues": places, "rules": [rule.model_dump() for rule in loaded.settings.policy]})
        return
    for name, found in places.items():
        line(f"{name}: chain {found['chain_id']}, wallet {found['owner']}", "bold")
        if found["safe"]:
            line(f"  acts for the Safe {found['safe']}, which holds the tokens; its batches go through {found['multi_send']} alone")
        elif found["account"] != "eoa":
            line(f"  acts through its account ({found['account']}) {found['holder']}, which holds the tokens")
        if found["account"] == "role":
            line(f"  as the role {found['role']!r}, in whose bounds a contract holds it; `isthmus keys roles check` looks at that")
        payee = "Safe" if found["safe"] else "wallet" if found["account"] == "eoa" else "account"
        line(f"  swaps through {found['router']}, paid to the {payee} alone, each with a least amount")
        line(f"  exact approvals to Permit2 {found['permit2']}, exact permits to the router")
        line(f"  swaps and permits that end within {found['deadline_ahead_s'] // 60} minutes")
        line(f"  tokens {', '.join(found['tokens'])}; gas up to {found['gas_fee_max_gwei']} gwei and {found['gas_limit_max']:,}")
        if found["anchor"]:
            line(f"  heads of the journal to {found['anchor']}")
    if not places:
        line("no venue of the settings is on a chain: no wallet signs anything")
    spent = _counted(loaded)
    for number, rule in enumerate(loaded.settings.policy, 1):
        out.print(Text(f"{number:3} {rule.effect:5}  {rule.name}: {_sentence(rule)}", overflow="fold"))
        if rule.window_s:
            used = sum(spent.used(rule.name, token) for token, _ in _tokens(loaded, rule.give[0]))
            decimals = next(decimals for _, decimals in _tokens(loaded, rule.give[0]))
            line(f"           {plain(used, decimals)} of {rule.window_max} {rule.give[0]} are taken now", "dim")
    if not loaded.settings.policy:
        line("no rules of your own: all of that is allowed; see docs/policy.md", "dim")


@commands.command("check")
def check(request: Request, config: Config = None, as_json: Json = False) -> None:
    """Read a request as the key would read it, and say what decides about it. Exit code 3 when it would be refused."""
    loaded = settings_of(config)
    asked = read_request(_bytes(request))
    name, section = _place(loaded, asked)
    found = judged(
        policy_of(loaded, name, section, section.wallet, section.chain_id), asked, _counted(loaded), RealClock().now_ns() // 10**9
    )
    symbols = {token.address.lower(): (token.symbol, token.decimals) for token in section.tokens}
    if as_json:
        acts = [{**_act(one.act, symbols), "rule": one.rule or None, "refused": one.why or None} for one in found.verdicts]
        print_json({"venue": name, "acts": acts, "would_sign": not found.refused, "refused": found.refused or None})
    else:
        _tell(name, found, symbols)
    raise typer.Exit(SignerError.exit_code if found.refused else 0)


@commands.command("pin")
def pin(config: Config = None, as_json: Json = False) -> None:
    """The hashes of the code that the settings' contracts are now, to be kept in the settings by whoever has looked at them."""
    loaded = settings_of(config)
    found = run_async(lambda: _pins(loaded))
    if as_json:
        print_json({"venues": found})
        return
    for name, pins in found.items():
        line(f"[venues.{name}.code_hashes]")
        for address, code_hash in pins.items():
            out.print(f'"{address}" = "{code_hash}"', markup=False, highlight=False, soft_wrap=True)  # whole: it goes into a file


async def _pins(loaded: Loaded) -> dict[str, dict[str, str]]:
    tools = Tools(RealClock())
    return {name: await venue_module(one.kind, name).pins_of(one, tools) for name, one in _on_chain(loaded).items()}


def _tell(name: str, found: Finding, symbols: Mapping[str, tuple[str, int]]) -> None:
    left = "does", "token", "for it", "decided by"
    table = new_table(("does", "at most", "token", "at least", "for it", "decided by"), left)
    for one in found.verdicts:
        act = _act(one.act, symbols)
        table.add_row(
            act["act"],
            act["amount"],
            act["give"],
            act["least"],
            act["receive"],
            one.rule or ("no rule" if one.why else "the hard rules"),
        )
    if found.verdicts:
        out.print(table)
    if found.refused:
        out.print(Text(f"refused: {found.refused}", style="red", overflow="fold"))
    else:
        line(f"the key would sign it for {name}", "green")


def _act(act: Any, symbols: Mapping[str, tuple[str, int]]) -> dict[str, str]:
    """In whole coins where the token is known."""

    def amount(units: int, token: str) -> str:
        if not token or not units:
            return ""
        return "unknown" if units == 2**256 - 1 else plain(units, symbols.get(token, ("", 0))[1])

    def symbol(token: str) -> str:
        return symbols.get(token, (token, 0))[0]

    return {
        "act": act.kind.replace("_", " "),
        "give": symbol(act.given),
        "amount": amount(act.amount, act.given),
        "receive": symbol(act.received),
        "least": amount(act.least, act.received),
    }


def _hard(loaded: Loaded, name: str, section: Any) -> dict[str, Any]:
    policy = policy_of(loaded, name, section, section.wallet, section.chain_id)
    return {
        "chain_id": policy.chain_id,
        "owner": section.wallet,
        "account": section.account,
        "holder": section.holder,
        "role": section.role,
        "safe": section.safe,
        "multi_send": section.contracts.multi_send if section.safe else "",
        "router": section.contracts.universal_router,
        "permit2": section.contracts.permit2,
        "tokens": [token.symbol for token in section.tokens],
        "gas_fee_max_gwei": policy.gas_fee_max // 10**9,
        "gas_limit_max": policy.gas_limit_max,
        "deadline_ahead_s": AHEAD_S,
        "anchor": section.contracts.audit_anchor,
        "rules": [rule.name for rule in policy.rules],
    }


def _sentence(rule: PolicyRule) -> str:
    acts = ", ".join(one.replace("_", " ") for one in rule.acts) or "any act"
    parts = [
        acts,
        *(f"{word} {' or '.join(names)}" for word, names in (("giving", rule.give), ("receiving", rule.receive)) if names),
    ]
    parts += [f"to {' or '.join(rule.to)}"] if rule.to else []
    parts += [f"at {', '.join(rule.venues)}"] if rule.venues else []
    parts += [f"up to {rule.amount_max} at once"] if rule.amount_max else []
    parts += [f"{rule.window_max} in {rule.window_s} s"] if rule.window_s else []
    return ", ".join(parts)


def _tokens(loaded: Loaded, symbol: str) -> list[tuple[str, int]]:
    """(address, decimals) of a token at each venue that lists it."""
    listed = (token for section in _on_chain(loaded).values() for token in section.tokens)
    return list(dict.fromkeys((token.address.lower(), token.decimals) for token in listed if token.symbol == symbol))


def _on_chain(loaded: Loaded) -> dict[str, Any]:
    return {name: section for name, section in loaded.venues.items() if hasattr(section, "chain_id")}


def _place(loaded: Loaded, asked: Calls | TypedData) -> tuple[str, Any]:
    chain_id = asked.chain_id if isinstance(asked, Calls) else asked.domain.get("chainId")
    for name, section in _on_chain(loaded).items():
        if section.chain_id == chain_id:
            return name, section
    raise SignerError(f"no venue of {loaded.path.name} is on chain {str(chain_id)[:24]}; the key signs nothing there")


def _counted(loaded: Loaded) -> Any:
    return spent_of(loaded, RealClock(), read_only=True)


def _bytes(path: Path) -> bytes:
    if str(path) == "-":
        raw = sys.stdin.buffer.read(FILE_BYTES_MAX + 1)
    else:
        try:
            with path.open("rb") as file:
                raw = file.read(FILE_BYTES_MAX + 1)
        except OSError as error:
            raise UsageError(
                f"cannot read {path}: {error.strerror}; name a file with the request, or - for standard input"
            ) from None
    if len(raw) > FILE_BYTES_MAX:
        raise UsageError(f"the request is larger than {FILE_BYTES_MAX} bytes; a key would not read it either")
    return raw
