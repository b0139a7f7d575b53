"""The demo: 40 ETH over a sandbox exchange and v2, v3 and v4 pools in one command, better than any venue alone, with 0 breaks."""

import signal
import time
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from cli_kit import isthmus, started
from cosigner_kit import PRIMES, need_engine

WITHIN_S = 60
TAPE = Path("market/binance_spot_ethusdt_20240808.jsonl.gz")


def holds(found: dict[str, Any], transactions: int = 2) -> None:
    """What is promised of every demo."""
    assert found["status"] == "FILLED"
    assert found["simulated"] is True
    assert found["breaks"] == []
    assert Decimal(found["parent"]["filled"]["amount"]) == 40
    assert sum(Decimal(leg["base"]["amount"]) for leg in found["legs"]) == 40
    assert found["gas"]["transactions"] >= transactions
    assert Decimal(found["gas"]["paid"]["amount"]) > 0
    assert Decimal(found["all_in_price"]) > 0
    assert found["best_single_venue"]["price"]
    assert found["improvement_bps"] > 0, found["best_single_venue"]


def sources(found: dict[str, Any]) -> set[str]:
    """binance, v2, v3, v4"""
    return {
        leg["instrument"].partition(":")[2].partition("-")[0] if leg["venue"] == "uniswap" else leg["venue"]
        for leg in found["legs"]
    }


@pytest.mark.chain
@pytest.mark.parametrize(("chain", "account"), [("anvil", "eoa"), ("eth-tester", "eoa"), ("anvil", "safe")])
def test_demo(chain: str, account: str, tmp_path: Path) -> None:
    began = time.monotonic()
    pace = () if (chain, account) == ("anvil", "eoa") else ("--every", "1s")  # one of them as it is, the others quicker
    done = isthmus("demo", "--json", "--chain", chain, "--account", account, *pace, at=tmp_path)
    assert time.monotonic() - began < WITHIN_S
    assert done.code == 0, done
    assert done.err == ""
    holds(done.json, 2 if account == "eoa" else 1)  # a Safe needs no approval before
    assert sources(done.json) == {"binance", "v2", "v3", "v4"}
    assert isthmus("sandbox", "status", "--home", tmp_path / ".isthmus/demo", at=tmp_path).code == 4, "nothing is left running"


@pytest.mark.chain
@pytest.mark.alone
@pytest.mark.nightly
@pytest.mark.timeout(300)
def test_demo_with_a_key_that_no_machine_holds(tmp_path: Path) -> None:
    """Three parties, two of them daemons with a policy of their own; the primes were made before."""
    need_engine()
    done = isthmus("demo", "--json", "--account", "mpc", "--slices", "2", "--primes", PRIMES, at=tmp_path, timeout_s=240)
    assert done.code == 0, done
    holds(done.json)
    assert done.json["account"]["custody"] == "mpc"
    settings = tomllib.loads((tmp_path / ".isthmus/demo/isthmus.toml").read_text())
    assert settings["wallet"]["kind"] == "mpc"
    said = isthmus("cosigner", "audit", "--home", ".isthmus/demo/parties/first/cosigner", "--json", at=tmp_path)
    assert {row["type"] for row in said.json} >= {"KeyMade", "Taken", "Gave"}
    assert not any(row["type"] == "Refused" and "policy" in row["reason"] for row in said.json)


@pytest.mark.chain
def test_demo_on_a_tape(shared_data: Path, tmp_path: Path) -> None:
    tape = shared_data / TAPE
    if not tape.is_file():
        pytest.skip("no tape here")
    done = isthmus("demo", "--json", "--tape", tape, "--every", "1s", at=tmp_path)
    assert done.code == 0, done
    holds(done.json)


@pytest.mark.chain
def test_demo_as_a_person_sees_it_then_interrupted(tmp_path: Path) -> None:
    """Every line fits 80 columns and has no colour off a terminal. Ctrl-C ends it with 130 and stops the sandbox."""
    demo = started("demo", "--slices", "40", at=tmp_path)
    assert demo.stdout is not None
    told = ""
    for line in demo.stdout:
        told += line
        if line.startswith("fill "):
            break
    demo.send_signal(signal.SIGINT)
    out, err = demo.communicate(timeout=30)
    assert demo.returncode == 130, out + err
    assert "Traceback" not in out + err
    assert "\x1b" not in told
    assert all(len(line) <= 80 for line in told.splitlines()), told
    assert all(word in told for word in ("SIMULATED", "permit ", "for signed swaps only", "route 1", "pays best until"))
    assert isthmus("sandbox", "status", "--home", tmp_path / ".isthmus/demo", at=tmp_path).code == 4


@pytest.mark.chain
def test_a_demo_that_was_killed_is_finished_by_run(tmp_path: Path) -> None:
    """kill -9 while it trades; `run` resumes from the journal, repeats nothing, and stops the sandbox."""
    demo = started("demo", "--slices", "2", "--every", "1s", at=tmp_path)
    assert demo.stdout is not None
    for line in demo.stdout:
        if line.startswith("fill "):
            break
    demo.kill()
    demo.communicate(timeout=10)
    done = isthmus("run", "--json", at=tmp_path)
    assert done.code == 0, done
    assert done.json["breaks"] == []
    (found,) = done.json["orders"]
    assert found["status"] == "FILLED"
    assert sum(Decimal(leg["base"]["amount"]) for leg in found["legs"]) == 40
    assert isthmus("sandbox", "status", "--home", tmp_path / ".isthmus/demo", at=tmp_path).code == 4
    again = isthmus("run", at=tmp_path)
    assert again.code == 4
    assert "`isthmus demo` starts a new one" in again.err
