"""Every command against one running sandbox, as text and as JSON: what it prints, its exit code, and what it never prints."""

import gzip
import json
import signal
import subprocess
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from cli_kit import isthmus, started, variant

pytestmark = pytest.mark.xdist_group("commands")

PAIR = "ETH/USDT"
SOLD = "70"  # more than the exchange holds for us
ANSI = "\x1b["
KEY = "0x" + "5a" * 32
ADDRESS = "0xa8049bB68181799124F98E467DD749e120abFA64"


@pytest.fixture(scope="module")
def desk(box: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with settings for the sandbox and a journal of its own."""
    return variant(box, tmp_path_factory.mktemp("desk")).parent


@pytest.fixture(scope="module")
def sold(desk: Path) -> dict[str, Any]:
    """The result of one order: a sale big enough to need the exchange and the pools."""
    done = isthmus("order", "submit", PAIR, "--side", "sell", "--qty", SOLD, "--slippage-bps", "300", "--json", at=desk)
    assert done.code == 0, done
    found: dict[str, Any] = done.json
    return found


def variant_without_journal(desk: Path) -> Path:
    """The same settings in a folder where nothing has happened."""
    folder = desk.parent / f"{desk.name}-new"
    if not folder.exists():
        folder.mkdir()
        variant(desk, folder)
    return folder


def floats(value: Any) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from floats(inner)


def narrow(text: str) -> bool:
    return all(len(line) <= 80 for line in text.splitlines())


def test_version_and_help(tmp_path: Path) -> None:
    assert isthmus("--version", at=tmp_path).out.startswith("isthmus 0.")
    assert isthmus("--help", at=tmp_path).code == 0
    bare = isthmus(at=tmp_path)
    assert (bare.code, "Commands:" in bare.out) == (2, True)
    bare = isthmus("order", at=tmp_path)
    assert (bare.code, "submit" in bare.out) == (2, True)


def test_init_then_doctor(tmp_path: Path) -> None:
    assert isthmus("init", "--json", at=tmp_path).json == {"written": "isthmus.toml"}
    done = isthmus("doctor", "--json", at=tmp_path)
    assert done.code == 4, "nothing can trade yet"
    checks = {check["name"]: check for check in done.json["checks"]}
    assert checks["settings"]["level"] == "ok"
    assert checks["venues"]["level"] == "fail"
    assert checks["venues"]["fix"]


def test_doctor(desk: Path) -> None:
    done = isthmus("doctor", "--json", at=desk)
    assert done.code == 0, done
    checks = {check["name"]: check for check in done.json["checks"]}
    wanted = ("python", "signing", "settings", "home folder", "journal", "kill switch", "keystore", "wallet",
              "binance reachable", "binance clock", "binance account", "uniswap reachable", "uniswap chain id", "uniswap head",
              "uniswap account", "arming")  # fmt: skip
    assert {name: checks[name]["level"] for name in wanted} == dict.fromkeys(wanted, "ok")
    assert checks["binance key"]["level"] == "ok", "the sandbox's key may trade and not withdraw"
    text = isthmus("doctor", at=desk)
    assert text.code == 0


def test_doctor_names_every_trouble_with_its_fix(box: Path, tmp_path: Path) -> None:
    config = variant(box, tmp_path, ("chain_id = 31337", "chain_id = 5"), ("\nurl = ", '\nurl = "http://127.0.0.1:1"#'))
    (tmp_path / "keystore").chmod(0o755)
    done = isthmus("doctor", "--json", at=config.parent)
    failed = {check["name"]: check for check in done.json["checks"] if check["level"] == "fail"}
    assert done.code == 4
    assert set(failed) == {"keystore", "wallet", "binance reachable", "uniswap reachable"}
    assert all(check["fix"] for check in failed.values())
    assert "chain 31337, the config says 5" in failed["uniswap reachable"]["text"] + failed["uniswap reachable"]["fix"]


def test_quote_and_route(desk: Path) -> None:
    done = isthmus("quote", PAIR, "--side", "sell", "--qty", "5", "--json", at=desk)
    assert done.code == 0, done
    assert Decimal(done.json["quote"]["amount"]) / 5 == pytest.approx(Decimal(done.json["price"]), rel=Decimal("1e-6"))
    assert done.json["against_mid_bps"] < 0
    text = isthmus("quote", "eth/usdt", "--side", "buy", "--qty", "5", at=desk)
    assert text.out.startswith("buy 5 ETH costs ")
    explained = isthmus("route", PAIR, "--side", "sell", "--qty", "12", "--explain", at=desk)
    assert explained.code == 0
    assert "pays best until" in explained.out
    assert "at one place alone" in explained.out
    route = isthmus("route", PAIR, "--side", "sell", "--qty", "12", "--json", at=desk).json["route"]
    assert sum(Decimal(piece["base"]["amount"]) for piece in route["pieces"]) == pytest.approx(12)
    assert all(isinstance(piece[name], str) for piece in route["pieces"] for name in ("price", "price_all_in"))
    assert route["alternatives"]


def test_dry_run_sends_nothing(desk: Path) -> None:
    before = isthmus("order", "list", "--json", at=desk).json
    done = isthmus("order", "submit", PAIR, "--side", "buy", "--qty", "30", "--slices", "3", "--dry-run", "--json", at=desk)
    assert done.code == 0, done
    assert (done.json["status"], done.json["sent"]) == ("DRY_RUN", 0)
    assert Decimal(done.json["route"]["quantity"]["amount"]) == 10
    assert {one["decision"] for one in done.json["orders"]} == {"APPROVED"}
    text = isthmus("order", "submit", PAIR, "--side", "sell", "--qty", "3", "--slices", "3", "--rest", "--dry-run", at=desk)
    assert text.out.startswith("DRY RUN: nothing is signed or sent")
    assert "then 2 more slices" in text.out
    assert isthmus("order", "list", "--json", at=desk).json == before


def test_an_algorithm_shows_its_schedule_and_refuses_what_makes_no_sense(desk: Path) -> None:
    wish = ("order", "submit", PAIR, "--side", "sell", "--qty", "3", "--dry-run", "--duration", "10m")
    found = isthmus(*wish, "--algo", "is", "--urgency", "300", "--json", at=desk).json
    assert found["sent"] == 0
    parts = [float(row["quantity"]["amount"]) for row in found["schedule"]]
    assert (len(parts), found["schedule"][-1]["after_s"]) == (20, 570)
    assert parts == sorted(parts, reverse=True)
    assert sum(parts[:5]) > 1.5, "half within the first quarter"
    assert found["schedule"][-1]["total"]["amount"] == "3"
    refused = isthmus(*wish, "--algo", "twap", "--interval", "20m", at=desk)
    assert refused.code == 3
    assert "at most 600 s" in refused.err
    assert isthmus(*wish, "--algo", "twap", "--interval", "0s", at=desk).code == 3


def test_submit_tells_what_it_cost(sold: dict[str, Any]) -> None:
    assert sold["status"] == "FILLED"
    assert sold["breaks"] == []
    assert sum(Decimal(leg["base"]["amount"]) for leg in sold["legs"]) == int(SOLD)
    assert all(isinstance(sold[name], str) for name in ("all_in_price", "arrival_price"))
    assert all(value == round(value, 6) for value in floats(sold)), "no digits that mean nothing"
    assert {order["kind"] for order in sold["orders"]} >= {"permission", "batch"}
    assert all(leg["venue"] and leg["instrument"] and leg["state"] and leg["fills"] for leg in sold["legs"])


def test_list_and_show(desk: Path, sold: dict[str, Any]) -> None:
    name = sold["parent"]["intent_id"]
    listed = isthmus("order", "list", "--json", at=desk)
    assert [one["status"] for one in listed.json if one["parent"]["intent_id"] == name] == ["FILLED"]
    text = isthmus("order", "list", at=desk)
    assert name in text.out
    assert narrow(text.out)
    shown = isthmus("order", "show", name, "--json", at=desk)
    assert shown.json["legs"] == sold["legs"]
    text = isthmus("order", "show", name, at=desk)
    assert "for signed swaps only" in text.out
    assert narrow(text.out)
    assert ANSI not in text.out
    assert "quoted -> executed" in text.out
    child = sold["orders"][-1]["order_id"]
    assert isthmus("order", "show", child, "--json", at=desk).json["order_id"] == child
    assert child in isthmus("order", "show", child, at=desk).out
    gaps = [shown.json["gap"], *shown.json["gaps"].values(), isthmus("order", "show", child, "--json", at=desk).json["gap"]]
    for gap in gaps:
        parts = [Decimal(gap[part]["amount"]) for part in ("promised", "drift", "fee", "gas", "sandwich", "rest")]
        assert sum(parts) == Decimal(gap["executed"]["amount"]), "every unit between quoted and executed has a name"
    assert gaps[0]["executed"] == sold["parent"]["quote"], "what was really received"


def test_venues(desk: Path, sold: dict[str, Any]) -> None:
    text = isthmus("venues", at=desk)
    assert text.code == 0, text
    assert narrow(text.out)
    assert "…" not in text.out.partition("n: orders")[0], "no column is cut"
    told = isthmus("venues", "--json", at=desk).json["venues"]
    assert set(told) == {"binance", "uniswap"}
    for name, card in told.items():
        assert name in text.out
        assert card["orders"] >= 1
        assert card["ack_ms"]["mean"] > 0
        assert 0 <= card["charge_pips"] <= 5_000
        assert set(card["terms_pips"]) == {"drift", "return", "unfilled", "rejects", "reverts"}
        assert card["avoided"] == ""
    assert isthmus("venues", at=variant_without_journal(desk)).out.startswith("no venue has been traded at yet")


def test_balances_and_reconcile(desk: Path, sold: dict[str, Any]) -> None:
    rows = isthmus("balances", "--json", at=desk).json
    assert {row["venue"] for row in rows} == {"binance", "uniswap"}
    assert all(row["outside"] == row["journal"] for row in rows)
    assert narrow(isthmus("balances", at=desk).out)
    assert isthmus("reconcile", at=desk).out == "0 breaks\n"
    assert isthmus("reconcile", "--json", at=desk).json == {"status": "ok", "breaks": [], "exit_code": 0}


def test_a_running_agent_is_talked_to_and_stops_in_order(desk: Path, sold: dict[str, Any]) -> None:
    """Orders are handed over, followed, cancelled; SIGTERM ends the agent with 0; what was live then can still be cancelled."""
    agent = started("run", at=desk)
    try:
        wait_for(agent, "serving the desk")
        done = isthmus("order", "submit", PAIR, "--side", "buy", "--qty", "1", "--slippage-bps", "60", "--json", at=desk)
        assert done.code == 0, done
        assert done.json["status"] == "FILLED"
        long = ("order", "submit", PAIR, "--side", "sell", "--qty", "8", "--slices", "8", "--every", "1m", "--detach", "--json")
        first = isthmus(*long, at=desk).json["parent"]["intent_id"]
        assert isthmus("order", "cancel", first, "--json", at=desk).json == {"status": "CANCELLED", "intent_id": first}
        again = isthmus(*long, "--strategy", "other", at=desk)
        assert again.code == 0, again
        assert isthmus("reconcile", "--json", at=desk).json["breaks"] == []
    finally:
        agent.send_signal(signal.SIGTERM)
        out, err = agent.communicate(timeout=30)
    assert agent.returncode == 0, out + err
    name = again.json["parent"]["intent_id"]
    assert [one["status"] for one in isthmus("order", "list", "--json", at=desk).json if one["parent"]["intent_id"] == name] == [
        "LIVE"
    ]
    assert isthmus("order", "pause", name, "--json", at=desk).json["status"] == "PAUSED", "also where no agent runs"
    assert isthmus("order", "cancel", name, "--json", at=desk).json["status"] == "CANCELLED"


def test_interrupted_by_hand(desk: Path, sold: dict[str, Any]) -> None:
    """Ctrl-C ends a submit with 130 and leaves the order live in the journal; `run` finishes it."""
    command = ("order", "submit", PAIR, "--side", "sell", "--qty", "2", "--slices", "2", "--every", "3s", "--strategy", "byhand")
    trader = started(*command, at=desk)
    wait_for(trader, "fill ")
    trader.send_signal(signal.SIGINT)
    out, err = trader.communicate(timeout=30)
    assert trader.returncode == 130, out + err
    assert "error: interrupted" in err
    assert "Traceback" not in out + err
    done = isthmus("run", "--json", at=desk)
    assert done.code == 0, done
    assert [one["status"] for one in done.json["orders"]] == ["FILLED"]


def test_keys(desk: Path, tmp_path: Path) -> None:
    store, password, key = tmp_path / "keystore", tmp_path / "password", tmp_path / "key"
    for file, text in ((password, "correct horse"), (key, KEY)):
        file.touch(mode=0o600)
        file.write_text(text)
    where = ("--keystore", store, "--password", f"file:{password}", "--json")
    imported = isthmus("keys", "import", "old", "--key", f"file:{key}", *where, at=tmp_path)
    assert imported.code == 0, imported
    made = isthmus("keys", "new", "fresh", *where, at=tmp_path)
    assert made.code == 0, made
    assert imported.json["address"] == ADDRESS, "as any other wallet derives it"
    listed = isthmus("keys", "list", "--keystore", store, "--json", at=tmp_path)
    assert listed.json == [made.json, imported.json]
    rows = {one["name"]: one for one in isthmus("keys", "list", "--json", at=desk).json}
    assert {name: (one["kind"], one["used_by"], one["health"]) for name, one in rows.items()} == {
        "main": ("keystore", "wallet", ""),
        "binance": ("api key", "binance", ""),
    }
    assert {(one["tier"], one["latency"]) for one in rows.values()} == {("hot", "microseconds")}
    shown = isthmus("keys", "list", at=desk).out
    assert rows["main"]["address"] in shown
    for done in (imported, made, listed):
        assert KEY[2:] not in done.out + done.err
        assert "correct horse" not in done.out + done.err


def test_record_makes_a_tape(desk: Path, tmp_path: Path) -> None:
    tape = tmp_path / "eth.jsonl.gz"
    done = isthmus("record", tape, "--seconds", "1", "--json", at=desk)
    assert done.code == 0, done
    lines = gzip.decompress(tape.read_bytes()).decode().splitlines()
    assert done.json == {"file": str(tape), "frames": len(lines)}
    assert "lastUpdateId" in json.loads(lines[0].partition(" ")[2])


def test_secrets_are_nowhere(box: Path, desk: Path, sold: dict[str, Any]) -> None:
    """The canary: neither the API secret nor the password nor the wallet's key is in any log, journal, socket file or settings."""
    canaries = [(box / name).read_bytes().strip() for name in ("exchange.secret", "wallet.password")]
    assert all(len(canary) > 16 for canary in canaries)
    allowed = {"exchange.secret", "wallet.password"}
    files = [path for home in (box, desk) for path in home.rglob("*") if path.is_file() and path.name not in allowed]
    assert any(path.name == "isthmus.log" for path in files)
    assert any(path.name.startswith("journal.sqlite") for path in files)
    assert [path.name for path in files for canary in canaries if canary in path.read_bytes()] == []
    for command in (("doctor", "--json"), ("order", "list"), ("sandbox", "status", "--json", "--home", str(box))):
        done = isthmus(*command, at=desk)
        assert not [canary for canary in canaries if canary.decode() in done.out + done.err]


def test_colour_only_where_it_is_wanted(tmp_path: Path) -> None:
    for extra, expected in (({}, False), ({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)):
        done = isthmus("order", "show", "nonsense", "-c", "none.toml", at=tmp_path, **extra)
        assert ("\x1b[31m" in done.err) is expected, extra


def wait_for(process: "subprocess.Popen[str]", words: str) -> None:
    """Read until a line says it; the process ending first is a failure."""
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            return
    raise AssertionError(f"it ended before it said {words!r}: {process.communicate(timeout=10)}")
