"""The README is run: its `console` blocks, in order, in one folder each; and every command answers `--help`.

A block after a comment `<!-- not run: reason -->` is left out. Names of tests, files and commands that it mentions must exist.
"""

import importlib
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
from cli_kit import environment, isthmus

from agent.cli import order, treasury
from agent.cli.tables import GAP_WORDS
from agent.cli.tca_tables import PART_WORDS
from agent.cli.venues import COLUMNS
from agent.config import KEYSTORE, Reconcile, Scorecard, custody_kinds, custody_module, load, wallet_section
from agent.engine.traded import HORIZONS_S
from agent.execution.gap import PARTS
from agent.execution.pretrade import PARTICIPATION_MAX
from agent.execution.tca import PARTS as COST_PARTS
from agent.market import document
from agent.routing.scorecard import Scoring
from agent.settlement.knobs import Knobs
from agent.treasurer import bounds_of
from agent.vaults import BoundSection, Treasury, accounts_of, vault_kinds

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
MARKET_PAGE = ROOT / "docs" / "market-file.md"
ORDERS_PAGE = ROOT / "docs" / "orders.md"
TREASURY_PAGE = ROOT / "docs" / "treasury.md"
KEYS_PAGE = ROOT / "docs" / "keys.md"
BLOCK = re.compile(r"(<!-- not run: [^\n]+ -->\n)?```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
TIMEOUT_S = 110
VENUE = f"""
[venues.uniswap]
kind = "uniswap"
rpc_url = "http://127.0.0.1:1"
chain_id = 1
wallet = "0x2c7536E3605D9C16a7a3D7b1898e529396a65c23"
contracts = {{ universal_router = "0x{"a1" * 20}" }}
tokens = [
  {{ symbol = "WETH", address = "0x{"b1" * 20}", decimals = 18, group = "ETH" }},
  {{ symbol = "USDT", address = "0x{"b2" * 20}", decimals = 6 }},
]
pools = [{{ protocol = "v2", base = "WETH", quote = "USDT", address = "0x{"0e" * 20}" }}]
"""
COMMANDS = [
    (), ("demo",), ("init",), ("doctor",), ("run",), ("quote",), ("route",), ("balances",), ("reconcile",), ("record",),
    ("venues",), ("order",), ("order", "submit"), ("order", "list"), ("order", "show"), ("order", "cancel"),
    ("order", "tca"), ("order", "report"), ("order", "preview"), ("tca",),
    ("order", "pause"), ("order", "continue"), ("order", "amend"), ("order", "bracket"), ("order", "oco"),
    ("kill",), ("simulate",), ("audit",), ("audit", "verify"), ("audit", "anchor"),
    ("keys",), ("keys", "new"), ("keys", "import"), ("keys", "list"),
    ("keys", "delegate"), ("keys", "ticket"), ("keys", "ticket", "export"), ("keys", "offline"), ("keys", "offline", "sign"),
    ("treasury",), ("treasury", "show"), ("treasury", "sweep"), ("treasury", "pay"), ("treasury", "refuse"),
    ("policy",), ("policy", "show"), ("policy", "check"), ("policy", "pin"),
    ("cosigner",), ("cosigner", "init"), ("cosigner", "primes"), ("cosigner", "setup"), ("cosigner", "serve"),
    ("cosigner", "show"), ("cosigner", "backup"), ("cosigner", "restore"), ("cosigner", "audit"),
    ("signer",), ("sandbox",), ("sandbox", "up"), ("sandbox", "status"), ("sandbox", "down"),
]  # fmt: skip
GROUPS = {command for command in COMMANDS if any(other[:-1] == command for other in COMMANDS if other)}


def blocks(page: Path = README) -> list[list[str]]:
    """The commands of every block that is to be run."""
    found = [text for skipped, text in BLOCK.findall(page.read_text(encoding="utf-8")) if not skipped]
    return [[line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")] for text in found]


@pytest.mark.chain
@pytest.mark.parametrize("commands", blocks())
def test_the_readme_runs(commands: list[str], tmp_path: Path) -> None:
    place = tmp_path / "here"
    place.mkdir()
    try:
        run(commands, place, tmp_path / "bin")
    finally:
        for settings in place.rglob("sandbox.json"):  # a block that failed half way leaves nothing running
            isthmus("sandbox", "down", "--home", settings.parent, at=place)


def test_the_page_of_market_files_runs(tmp_path: Path) -> None:
    """Its example is read, every command of it works, and the answer that it shows is the answer."""
    text = MARKET_PAGE.read_text(encoding="utf-8")
    (tmp_path / "market.json").write_text(text.partition("```json\n")[2].partition("```")[0])
    for commands in blocks(MARKET_PAGE):
        run(commands, tmp_path, tmp_path / "bin")
    command, shown = re.findall(r"<!-- printed by: isthmus ([^\n]+) -->\n```text\n(.*?)```", text, re.DOTALL)[0]
    done = isthmus(*shlex.split(command), at=tmp_path)
    assert timeless(shown) == timeless(done.out)


def test_the_page_of_market_files_names_every_key() -> None:
    named = set(re.findall(r"`(\w+)`", MARKET_PAGE.read_text(encoding="utf-8")))
    rows = document.schema()["$defs"].values()
    assert {key for row in rows for key in row["properties"]} - named == set()
    gas = re.findall(r"(\d{5,6}) (?:for )?(v2|v3|v4|stable)", MARKET_PAGE.read_text(encoding="utf-8"))
    kinds = {
        row["properties"]["kind"]["enum"][0]: row["properties"]["gas"]["default"] for row in rows if "kind" in row["properties"]
    }
    assert {kind: int(units) for units, kind in gas} == kinds


def test_the_page_of_keys_holds_every_kind() -> None:
    """A row for each kind with its tier and latency, settings that are accepted, and every setting named."""
    text = KEYS_PAGE.read_text(encoding="utf-8")
    rows = {row[0]: row[2:4] for row in re.findall(r"^\| `(\w+)` \| ([^|]+) \| (\w+) \| (\w+) \|", text, re.MULTILINE)}
    modules = {kind: custody_module(kind, "docs") for kind in custody_kinds()}
    told = {kind: (module.CUSTODY.tier, module.CUSTODY.latency) for kind, module in modules.items()}
    assert rows == told | {KEYSTORE: ("hot", "microseconds")}
    sections = [tomllib.loads(block)["wallet"] for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL)]
    assert {section["kind"] for section in sections} == rows.keys()
    for section in sections:
        found = wallet_section(section, "docs/keys.md")
        assert not [name for name in type(found).model_fields if not re.search(rf"`{name}`|^{name} = ", text, re.MULTILINE)]


def test_the_page_of_orders_names_every_option_and_shows_commands_that_exist() -> None:
    text = ORDERS_PAGE.read_text(encoding="utf-8")
    commands = typer.main.get_command(order.commands).commands  # type: ignore[attr-defined]
    shown = [shlex.split(line) for line in text.splitlines() if line.startswith("isthmus order ")]
    assert {words[2] for words in shown} >= {"submit", "bracket", "oco", "amend", "pause", "continue"}
    for words in shown:
        known = {name for option in commands[words[2]].params for name in option.opts}
        assert [word for word in words if word.startswith("--") and word not in known] == []
    panel = [one for one in commands["submit"].params if one.name in ("stop", "take", "trail", "activation", "stop_by", "after")]
    options = {name for one in (*panel, *commands["oco"].params) for name in one.opts if name.startswith("--")}
    usual = {"--side", "--qty", "--strategy", "--detach", "--config", "--live", "--json"}
    assert [name for name in options - usual if f"`{name}" not in text] == []


def test_the_page_of_the_treasury_holds_every_kind(tmp_path: Path) -> None:
    """A row for each kind with its tier and latency; settings that are accepted, and every setting named; every command."""
    text = TREASURY_PAGE.read_text(encoding="utf-8")
    rows = {row[0]: row[2:4] for row in re.findall(r"^\| `(\w+)` \| ([^|]+) \| (\w+) \| (\w+) \|", text, re.MULTILINE)}
    told = {kind: importlib.import_module(f"agent.keys.vaults.{kind}").CUSTODY for kind in vault_kinds()}
    assert rows == {kind: (custody.tier, custody.latency) for kind, custody in told.items()}
    example = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)[0]
    (tmp_path / "isthmus.toml").write_text(VENUE + example)
    loaded = load(tmp_path / "isthmus.toml")
    found = accounts_of(loaded)
    assert {one.kind for one in found.values()} == set(vault_kinds())
    assert bounds_of(loaded)
    models = [type(one.config) for one in found.values()] + [Treasury, BoundSection]
    names = {name for model in models for name in model.model_fields if model is not models[0]}
    assert not [name for name in names if not re.search(rf"`{name}`|\b{name} = |\[treasury\.{name}|\[\[treasury\.{name}", text)]
    names = {command.name for command in treasury.commands.registered_commands}
    assert not [name for name in names if not re.search(rf"treasury {name}|`{name}`", text)]


def timeless(shown: str) -> list[str]:
    """Lines without the one that tells how long it took, and without the space that fills tables up."""
    return [line.rstrip() for line in shown.splitlines() if not line.startswith("found in")]


def run(commands: list[str], place: Path, tools: Path) -> None:
    """A block in a shell, in a folder of its own, with `isthmus` on the path."""
    tools.mkdir(exist_ok=True)
    (tools / "isthmus").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m agent "$@"\n')
    (tools / "isthmus").chmod(0o755)
    script = "set -e\n" + "".join(f"echo {shlex.quote('$ ' + command)}\n{command}\n" for command in commands)
    path = f"{tools}:{environment()['PATH']}"
    done = subprocess.run(
        ["sh", "-c", script],
        cwd=place,
        env=environment(PATH=path),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3_000:] + done.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_answers_help(command: tuple[str, ...], tmp_path: Path) -> None:
    done = isthmus(*command, "--help", at=tmp_path)
    assert done.code == 0, done
    assert done.out.startswith("Usage: ")
    assert done.err == ""
    if command not in GROUPS | {()}:
        assert "--json" in done.out
    assert not list(tmp_path.iterdir()), "help writes nothing"


def test_what_the_readme_names_exists() -> None:
    text = README.read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:tests|agent|docs|benchmarks|contracts|deployments)/[\w./-]+?)(?:::(\w+))?`", text))
    for path, test in named:
        assert (ROOT / path).exists(), path
        assert not test or f"def {test}(" in (ROOT / path).read_text(encoding="utf-8"), f"{path}::{test}"
    for link in re.findall(r"\]\(((?!https?:)[^)#]+)\)", text):
        assert (ROOT / link).exists(), link
    for option in set(re.findall(r"`make (\w+)`|make (\w+)$", text, re.MULTILINE)):
        assert re.search(rf"^{option[0] or option[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), option


def test_the_knobs_are_the_ones_that_exist() -> None:
    text = (ROOT / "docs" / "reconciliation.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `(\w+)` \| (\S+) \|", text, re.MULTILINE))
    words = {"none": (), "false": False}
    known = {name: words[value] if value in words else int(value) for name, value in told.items()}
    assert known == {name: getattr(Knobs(), name) for name in Knobs.__struct_fields__}
    assert known == Reconcile().model_dump()


def test_the_knobs_of_scorecards_are_the_ones_that_exist() -> None:
    text = (ROOT / "docs" / "scorecard.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `(\w+)` \| (true|false|[\d.]+) \|", text, re.MULTILINE))
    known = {name: value == "true" if value in ("true", "false") else float(value) for name, value in told.items()}
    assert known == {name: getattr(Scoring(), name) for name in Scoring.__struct_fields__}
    assert known == Scorecard().model_dump()


def test_the_parts_of_the_gap_are_the_ones_that_are_shown() -> None:
    text = (ROOT / "docs" / "scorecard.md").read_text(encoding="utf-8")
    assert set(GAP_WORDS) == set(PARTS)
    assert all(f"| {words} |" in text for words in GAP_WORDS.values())
    assert all(f"`{column}`" in text for column in COLUMNS if column != "venue")


def test_the_parts_of_a_cost_are_the_ones_that_are_shown() -> None:
    text = (ROOT / "docs" / "tca.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == list(COST_PARTS)
    assert set(PART_WORDS) == set(COST_PARTS)
    assert all(f"{seconds} s" in text for seconds in HORIZONS_S)
    assert f"at most {PARTICIPATION_MAX:.0%}".replace("%", " %") in text
