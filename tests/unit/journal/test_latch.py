"""The kill latch: blocks when it should, and whenever nobody can say; whole or not there; lifted only with a reason on record."""

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from agent.domain.errors import JournalError
from agent.journal.latch import FILE, HISTORY, REASON_MAX, FileLatch
from agent.ports import Latch


def history(home: Path) -> list[tuple[str, str]]:
    return [(row["what"], row["reason"]) for row in map(json.loads, (home / HISTORY).read_text().splitlines())]


def test_nothing_is_in_the_way_of_a_fresh_home(tmp_path: Path) -> None:
    latch: Latch = FileLatch(tmp_path)
    assert latch.engaged() == ""
    assert FileLatch(tmp_path / "not" / "there").engaged() == ""


def test_it_blocks_every_process_that_looks_and_says_why(tmp_path: Path) -> None:
    home = tmp_path / "made" / "on the way"
    FileLatch(home).engage("prices\n look   wrong")
    assert FileLatch(home).engaged().endswith(": prices look wrong")
    assert stat.S_IMODE((home / FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    found = json.loads((home / FILE).read_text())
    assert found.keys() == {"what", "reason", "at", "at_ns", "pid"}
    assert [path.name for path in home.iterdir() if path.name.startswith(".")] == [], "nothing half-written stays behind"


def test_the_first_reason_counts_and_every_kill_is_remembered(tmp_path: Path) -> None:
    latch = FileLatch(tmp_path)
    latch.engage("first")
    latch.engage("second")
    assert latch.engaged().endswith("first")
    assert latch.lift("a person looked")
    assert latch.engaged() == ""
    assert not latch.lift("again")
    assert history(tmp_path) == [("engaged", "first"), ("engaged", "second"), ("lifted", "a person looked")]


@pytest.mark.parametrize("text", ["", "{", "[]", '"KILL"', "{}", '{"at": "now"}', "\x00" * 9_000, "null"])
def test_a_file_that_says_nothing_blocks(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    latch = FileLatch(tmp_path)
    assert "killed" in latch.engaged()
    latch.engage("more")
    assert (tmp_path / FILE).read_text() == text
    assert latch.lift("looked")
    assert latch.engaged() == ""


def test_a_file_that_is_not_text_blocks(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"\xff\xfe\x00")
    assert "killed" in FileLatch(tmp_path).engaged()


def test_whatever_is_in_its_place_blocks(tmp_path: Path) -> None:
    for name, put in {
        "folder": lambda path: path.mkdir(),
        "dangling link": lambda path: path.symlink_to("nowhere"),
        "loop": lambda path: path.symlink_to(path),
    }.items():
        home = tmp_path / name
        home.mkdir()
        put(home / FILE)
        assert "killed" in FileLatch(home).engaged(), name


def test_a_home_that_is_no_folder_blocks_and_cannot_be_set(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    latch = FileLatch(tmp_path / "home")
    assert "cannot be looked at" in latch.engaged()
    with pytest.raises(JournalError, match="it still blocks"):
        latch.lift("try")


def test_a_latch_that_cannot_be_set_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    latch = FileLatch(tmp_path / "dangling")
    (tmp_path / "dangling").symlink_to(tmp_path / "file" / "x")
    assert "cannot be looked at" in latch.engaged()
    (tmp_path / "dangling").unlink()
    (tmp_path / "dangling").symlink_to("gone/away")
    with pytest.raises(JournalError, match="kill -9"):
        latch.engage("now")


def test_a_folder_in_its_place_is_not_lifted(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(JournalError, match="it still blocks"):
        FileLatch(tmp_path).lift("looked")
    assert FileLatch(tmp_path).engaged()


def test_a_lift_without_a_record_is_no_lift(tmp_path: Path) -> None:
    latch = FileLatch(tmp_path)
    latch.engage("now")
    (tmp_path / HISTORY).unlink()
    (tmp_path / HISTORY).mkdir()
    with pytest.raises(JournalError, match="it still blocks"):
        latch.lift("looked")
    assert latch.engaged().endswith("now")


def test_it_blocks_on_a_full_disk(tmp_path: Path) -> None:
    """A process that may not write a single byte sets it all the same."""
    code = (
        "import resource, sys; from pathlib import Path; from agent.journal.latch import FileLatch;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); FileLatch(Path(sys.argv[1])).engage('full')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=30)
    assert "does not say why" in FileLatch(tmp_path).engaged()
    assert (tmp_path / FILE).stat().st_size == 0
    assert {path.name for path in tmp_path.iterdir()} <= {FILE, HISTORY}


def test_reasons_are_one_bounded_line_that_can_be_printed(tmp_path: Path) -> None:
    FileLatch(tmp_path).engage("\x1b[2J" + "x" * 10_000)
    told = FileLatch(tmp_path).engaged()
    assert told.isprintable()
    assert len(told) < REASON_MAX + 50
