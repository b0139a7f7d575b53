"""`simulate` as a person and a script use it: what it prints, what it refuses, and how it says that a law was broken."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer
from cli_kit import isthmus

from agent import observe
from agent.cli import simulate as command
from agent.domain.errors import UsageError
from agent.ledger import posting
from agent.simulation.drill.day import play
from agent.simulation.drill.faults import FAULTS
from agent.simulation.drill.laws import LAWS

WRONG = {
    "seeds without a number": (("--seeds", "soon"), "--seeds 'soon': write A:B with whole numbers, for example 0:1000"),
    "seeds without an end": (("--seeds", "5:"), "write A:B with whole numbers"),
    "seeds below zero": (("--seeds=-1:5",), "write A:B with whole numbers"),
    "three numbers": (("--seeds", "1:2:3"), "write A:B with whole numbers"),
    "other digits": (("--seeds", "١:٥"), "write A:B with whole numbers"),
    "no seeds at all": (("--seeds", "5:5"), "--seeds 5:5: between 1 and 10000000 seeds, the first before the last"),
    "seeds backwards": (("--seeds", "9:3"), "the first before the last"),
    "too many seeds": (("--seeds", "0:99999999999"), "between 1 and 10000000 seeds"),
    "seeds without an end in sight": (("--seeds", "9" * 5_000), "write A:B with whole numbers"),
    "a seed that no machine holds": (("--seeds", "9" * 30), "between 1 and 10000000 seeds"),
    "unknown fault": (("--fault", "reorgs"), "no fault is named 'reorgs'; did you mean reorg[?] .*--list-faults` names them all"),
    "a fault like no other": (("--fault", "zzz"), "no fault is named 'zzz'; `isthmus simulate --list-faults` names them all"),
    "one fault of two": (("--fault", "cut", "--fault", ""), "no fault is named ''"),
    "no processes": (("--jobs", "0"), "--jobs"),
    "a thousand processes": (("--jobs", "1000"), "--jobs"),
    "a trace of many": (("--trace", "--seeds", "0:2"), "--trace prints one seed: write --seeds 7:8"),
    "no such option": (("--seed", "3"), "No such option"),
}


@pytest.mark.parametrize(("arguments", "words"), WRONG.values(), ids=WRONG)
def test_what_is_typed_wrong(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    done = isthmus("simulate", *arguments, at=tmp_path)
    assert done.code == 2, done
    assert "Traceback" not in done.out + done.err
    lines = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done
    assert re.search(words, lines[0]), lines[0]
    assert not list(tmp_path.iterdir()), "nothing is written"


def test_errors_as_json(tmp_path: Path) -> None:
    done = isthmus("simulate", "--fault", "reorgs", "--json", at=tmp_path)
    assert done.code == 2
    assert (done.json["status"], done.json["exit_code"]) == ("error", 2)
    assert done.err == ""


@pytest.mark.parametrize(("text", "found"), [("3:10", range(3, 10)), ("7", range(7, 8)), ("0:1", range(1)), ("007:9", range(7, 9))])
def test_seeds_of(text: str, found: range) -> None:
    assert command.seeds_of(text) == found


@pytest.mark.parametrize("text", ["", ":", ":5", "1.5", " 1:2", "1:2 ", "0x1:2", "1_0:20", "²:3"])
def test_seeds_of_nonsense(text: str) -> None:
    with pytest.raises(UsageError, match="write A:B"):
        command.seeds_of(text)


def test_days_for_people(tmp_path: Path) -> None:
    done = isthmus("simulate", "--seeds", "0:4", at=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert re.search(r"^seeds +4$", done.out, re.MULTILINE)
    assert re.search(r"^violations +0$", done.out, re.MULTILINE)
    assert "never struck" in done.out, "four days cannot hold all faults"
    assert not list(tmp_path.iterdir())


def test_days_for_scripts(tmp_path: Path) -> None:
    done = isthmus("simulate", "--seeds", "2:6", "--jobs", "2", "--json", at=tmp_path)
    assert (done.code, done.err) == (0, "")
    found = done.json
    assert found["seeds"] == [2, 6]
    assert (found["faults"], found["violations"], found["failed"]) == ("all", 0, [])
    assert found["seeds_per_second"] > 0
    total = found["total"]
    assert (total["seeds"], total["violations"], total["failed"]) == (4, 0, [])
    assert min(total["hours"], total["records"], total["parents"], total["orders"]) > 0
    assert set(total["struck"]) <= set(FAULTS)
    assert set(found["never_struck"]) == set(FAULTS) - set(total["struck"])


def test_only_some_faults(tmp_path: Path) -> None:
    found = isthmus("simulate", "--seeds", "0:3", "--fault", "twice", "--fault", "cut", "--json", at=tmp_path).json
    assert found["faults"] == ["twice", "cut"]
    assert set(found["total"]["struck"]) <= {"twice", "cut"}
    assert found["never_struck"] == [], "of faults that nobody asked for nothing is missed"


def test_the_list_of_faults(tmp_path: Path) -> None:
    done = isthmus("simulate", "--list-faults", "--json", at=tmp_path)
    assert done.code == 0
    assert done.json == {name: {"rows": fault.rows.split(), "text": fault.text} for name, fault in FAULTS.items()}
    text = isthmus("simulate", "--list-faults", at=tmp_path)
    assert text.code == 0
    assert all(re.search(rf"^{name} ", text.out, re.MULTILINE) for name in FAULTS)


def test_one_day_with_every_record(tmp_path: Path) -> None:
    done = isthmus("simulate", "--seeds", "4", "--trace", at=tmp_path)
    day = play(4)
    *lines, last = done.out.splitlines()
    assert (done.code, done.err) == (0, "")
    assert last == f"head {day.head}"
    assert len([line for line in lines if re.match(r" *\d+ +\d+\.\d{3} \w+ \{", line)]) == day.records


# -- a law that is broken ------------------------------------------------------------------------------------------------


@pytest.fixture
def _no_fees(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A bug in the books: fees are not booked."""
    right = posting._fill
    monkeypatch.setattr(posting, "_fill", lambda fill, account: right(fill, account)[:-2])
    yield
    observe.open_log()


def run(*, as_json: bool = False, trace: bool = False) -> int:
    """In this process, because the bug is in it: the exit code."""
    with pytest.raises(typer.Exit) as left:
        command.simulate(seeds="1:3" if not trace else "1:2", fault=["twice"], trace=trace, as_json=as_json)
    return int(left.value.exit_code)


@pytest.mark.usefixtures("_no_fees")
def test_a_broken_law_is_told_with_the_way_to_repeat_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 4
    text = " ".join(capsys.readouterr().out.split())
    assert "seed 1: " in text
    assert f"the law: {LAWS['breaks']}" in text
    assert "isthmus simulate --seeds 1:2 --fault twice --trace" in text
    assert "the last records:" in text


@pytest.mark.usefixtures("_no_fees")
def test_a_broken_law_for_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(as_json=True) == 4
    found = json.loads(capsys.readouterr().out)
    assert found["violations"] == found["total"]["violations"] > 0
    assert 1 in found["total"]["failed"]
    first = next(one for one in found["failed"] if one["day"]["seed"] == 1)
    assert first["again"] == "isthmus simulate --seeds 1:2 --fault twice --trace"
    assert {one["law"] for one in first["day"]["violations"]} <= set(LAWS)
    assert first["day"]["tail"]


@pytest.mark.usefixtures("_no_fees")
def test_a_broken_law_in_a_trace(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(trace=True) == 4
    assert re.search(r"^broken: breaks at record \d+: ", capsys.readouterr().out, re.MULTILINE)
