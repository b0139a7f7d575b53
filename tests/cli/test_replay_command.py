"""`replay` as a person and a script use it: what it takes, what it prints, and what it refuses."""

import re
from pathlib import Path

import pytest
from cli_kit import isthmus
from replay_kit import write_tape

from agent.cli.replay import check_text, lasting, wish_of
from agent.domain.errors import NumberError, UsageError

ORDER = "sell 8 ETH/USDT --algo twap --duration 10s --interval 1s"
QUICK = ("--start", "1s", "--warm-up", "1s")

WRONG = {
    "no order": ((), 2, "Missing option '--order'"),
    "half an order": (("--order", "sell 8"), 2, r"--order: .*write it as \"sell 40 ETH/USDT"),
    "no such tape": (("--order", ORDER, "--tape", "none.gz"), 2, "cannot read the tape none.gz: No such file"),
    "a start that is none": (("--order", ORDER, "--start", "soon"), 2, "--start: 'soon' is not a duration"),
    "a lot that is none": (("--order", ORDER, "--lot", "0"), 2, "--tick, --lot or --mid: ETHUSDT: tick x lot must be"),
    "nobody to compare with": (("--order", ORDER, "--compare", "twap,foo"), 2, "no algorithm 'foo'"),
    "a journal of many runs": (("--order", ORDER, "--runs", "2", "--journal", "kept"), 2, "--journal keeps one run"),
    "an interval that is too long": (("--order", ORDER.replace("1s", "1m"), *QUICK), 3, r"SCHEDULE_OUT_OF_RANGE: .*at most 10 s"),
    "a seed below zero": (("--order", ORDER, "--seed=-1"), 2, "--seed"),
}
ODD = {
    "sell 8 'ETH": "--order: No closing quotation",
    f"{ORDER} --urgent": "--order: No such option.*--urgent",
    "sell 8 ETH/USDT --algo twip": "no algorithm 'twip'",
    "sell 8 ETHUSDT": "'ETHUSDT' is not a pair",
    "sell 0 ETH/USDT": "--qty must be above zero",
    "sell 8 ETH/USDT --help": "--order: `isthmus order submit --help` names",
    f"{ORDER} --after i1": "there is none to come --after",
    "sell 8 ETH/USDT --stop 2680 --take 2690": "waits for one price",
    "": "--order: .*write it as",
}


@pytest.mark.parametrize(("arguments", "code", "words"), WRONG.values(), ids=WRONG)
def test_what_is_typed_wrong(arguments: tuple[str, ...], code: int, words: str, tmp_path: Path) -> None:
    done = isthmus("replay", *arguments, at=tmp_path)
    assert done.code == code, done
    assert "Traceback" not in done.out + done.err
    lines = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done
    assert re.search(words, lines[0]), lines[0]
    assert not list(tmp_path.iterdir()), "nothing is written"


@pytest.mark.parametrize(("text", "words"), ODD.items(), ids=ODD)
def test_orders_that_make_no_sense(text: str, words: str) -> None:
    with pytest.raises((UsageError, NumberError), match=words):
        wish_of(text)


def test_prices_that_do_not_go_together() -> None:
    with pytest.raises(UsageError, match="--mid 0 is not above one tick"):
        check_text("0.01", "0.0001", "0")


def test_a_tape_that_is_too_short(tmp_path: Path) -> None:
    write_tape(tmp_path / "short.gz", 8)
    done = isthmus("replay", "--order", ORDER, "--tape", "short.gz", *QUICK, at=tmp_path)
    assert done.code == 2
    assert "the tape is 8 s long, so from --start on 7 s are left, and the order takes 15 s" in done.err


def test_the_words_of_an_order_are_those_of_submit() -> None:
    short, whole = wish_of(ORDER)(5), wish_of("ETH/USDT --side sell --qty 8 --algo twap --duration 10s --interval 1s")(5)
    assert short == whole
    assert lasting(short) == 10 * 10**9
    assert lasting(wish_of("buy 2 ETH/USDT --slices 5 --every 2s")(0)) == 8 * 10**9
    other = wish_of(ORDER, "is")(5)
    assert other.algo is not None
    assert (other.algo.name, dict(other.algo.parameters)["duration_ns"]) == ("is", 10 * 10**9)
    assert wish_of(f"{ORDER} --catch-up 200", "market")(5).algo is None
    with pytest.raises(UsageError, match="no algorithm 'foo'"):
        wish_of(ORDER, "foo")


def test_one_run_tells_what_became_of_it_and_keeps_its_journal(tmp_path: Path) -> None:
    done = isthmus("replay", "--order", ORDER, *QUICK, "--journal", "kept", "--json", at=tmp_path)
    assert done.code == 0, done
    found = done.json
    assert (found["status"], found["parent"]["intent_id"]) == ("FILLED", "r7")
    assert 8 < found["replay"]["virtual_s"] < 12
    assert found["replay"]["shortfall_bps"] == pytest.approx(-found["arrival_bps"], abs=1e-5)
    again = isthmus("replay", "--order", ORDER, *QUICK, at=tmp_path)
    assert f"head {found['replay']['head'][:16]}" in again.out, "the same words, the same journal"
    assert re.search(r"times real time", again.out)
    shown = isthmus("order", "show", "r7", "-c", "kept/isthmus.toml", "--json", at=tmp_path)
    assert shown.code == 0, shown
    assert shown.json["legs"] == found["legs"]
    costs = isthmus("order", "tca", "r7", "-c", "kept/isthmus.toml", "--json", at=tmp_path)
    assert costs.code == 0, costs
    assert isthmus("audit", "verify", "-c", "kept/isthmus.toml", at=tmp_path).code == 0


def test_many_runs_stand_beside_the_naive_ways(tmp_path: Path) -> None:
    write_tape(tmp_path / "eth.gz", 40)
    command = ("replay", "--order", ORDER, "--tape", "eth.gz", *QUICK, "--runs", "3", "--compare", "twap,market")
    done = isthmus(*command, "--json", at=tmp_path)
    assert done.code == 0, done
    found = done.json
    assert [one["label"] for one in found["results"]] == ["twap", "market", "naive market", "naive twap"]
    assert {one["runs"] for one in found["results"]} == {3}
    assert len(found["rows"]) == 12
    assert found["separate"] == 3
    assert {gap["word"] for one in found["results"] for gap in one["differences"]} == {"too little market"}
    shown = isthmus(*command, at=tmp_path)
    assert shown.code == 0
    assert "too little market" in shown.out
    assert max(map(len, shown.out.splitlines())) <= 110
