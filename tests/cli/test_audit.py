"""`audit` as an auditor uses it: a whole journal, an edited one, one that is cut, one that is written while it is read."""

import re
import shutil
import sqlite3
from pathlib import Path

import pytest
from cli_kit import isthmus
from journal_kit import fill, rewrite, rows_on_disk, some_events

from agent.journal.sqlite import SqliteJournal


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """Settings and a journal of 60 records."""
    (tmp_path / "isthmus.toml").write_text('account = "main"\n')
    (tmp_path / ".isthmus").mkdir(mode=0o700)
    fill(tmp_path / ".isthmus" / "journal.sqlite")
    return tmp_path


def journal(desk: Path) -> Path:
    return desk / ".isthmus" / "journal.sqlite"


def test_a_whole_journal_and_its_head(desk: Path) -> None:
    done = isthmus("audit", "verify", "--json", at=desk)
    head = f"60:{rows_on_disk(journal(desk))[-1].hash}"
    assert done.code == 0, done
    assert done.json == {
        "status": "ok", "journal": str(journal(desk)), "records": 60, "head": head, "first_bad": None, "error": "", "chains": [],
        "exit_code": 0,
    }  # fmt: skip
    text = isthmus("audit", "verify", at=desk)
    assert text.code == 0
    assert "60 records, each as it was written" in text.out
    assert "not compared with a chain: no venue was asked that keeps heads" in " ".join(text.out.split())
    assert head in text.out, "as --anchor takes it"
    assert isthmus("audit", "verify", "--anchor", head, at=desk).code == 0


def test_an_edited_record_is_named(desk: Path) -> None:
    rows = rows_on_disk(journal(desk))
    rows[41] = rows[41]._replace(at_ns=rows[41].at_ns + 1)
    rewrite(journal(desk), rows)
    done = isthmus("audit", "verify", "--json", at=desk)
    assert done.code == 4
    assert (done.json["status"], done.json["first_bad"], done.json["records"]) == ("fail", 42, 41)
    assert "record 42 was changed" in done.json["error"]
    text = isthmus("audit", "verify", at=desk)
    assert text.code == 4
    assert "first bad record 42; 41 before it are as they were written" in text.out


def test_an_anchor_shows_a_journal_that_was_rewritten_with_its_kept_head(desk: Path) -> None:
    """Whoever may write the folder can forge the file and its head. What was noted elsewhere stays out of reach."""
    rows = rows_on_disk(journal(desk))
    anchor = f"{rows[-1].seq}:{rows[-1].hash}"
    for path in (desk / ".isthmus").iterdir():
        path.unlink()
    fill(journal(desk), 59)
    assert isthmus("audit", "verify", at=desk).code == 0
    done = isthmus("audit", "verify", "--anchor", anchor, "--json", at=desk)
    assert done.code == 4
    assert (done.json["first_bad"], "ends at record 59, but record 60 was seen" in done.json["error"]) == (60, True)


def test_changed_tables_fail(desk: Path) -> None:
    with sqlite3.connect(journal(desk)) as db:
        db.execute("DROP TRIGGER record_no_update")
    db.close()
    done = isthmus("audit", "verify", "--json", at=desk)
    assert (done.code, done.json["first_bad"], "were changed" in done.json["error"]) == (4, None, True)


def test_it_reads_beside_a_writer(desk: Path) -> None:
    writer = SqliteJournal(journal(desk))
    writer.append(1, some_events(5))
    done = isthmus("audit", "verify", "--json", at=desk)
    assert (done.code, done.json["records"]) == (0, 65)
    writer.append(2, some_events(1))
    writer.close()


@pytest.mark.parametrize("anchor", ["", "60", "60:", "60:abc", ":" + "0" * 64, "-1:" + "0" * 64, "60:" + "G" * 64])
def test_a_bad_anchor_is_a_usage_error(desk: Path, anchor: str) -> None:
    done = isthmus("audit", "verify", "--anchor", anchor, at=desk)
    assert (done.code, "SEQ:HASH" in done.err) == (2, True)


def test_who_insists_on_a_chain_needs_one_and_a_mistake_in_its_section_hides_nothing_else(desk: Path) -> None:
    done = isthmus("audit", "verify", "--chain", at=desk)
    assert (done.code, "no venue keeps heads of the journal; set contracts.audit_anchor" in done.err) == (2, True)
    with (desk / "isthmus.toml").open("a") as file:
        file.write('[venues.pools]\nkind = "uniswap"\ncontracts = { audit_anchor = "0x00" }\n')
    done = isthmus("audit", "verify", "--json", at=desk)
    assert (done.code, done.json["records"], done.json["chains"][0]["status"]) == (0, 60, "not compared")
    assert "venues.pools: Object missing required field `rpc_url`" in done.json["chains"][0]["error"]
    assert isthmus("audit", "verify", "--no-chain", "--json", at=desk).json["chains"] == []
    assert isthmus("audit", "verify", "--chain", at=desk).code == 2


def test_no_journal_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "isthmus.toml").write_text('account = "main"\n')
    for command in (("verify",), ("accept-loss", "why")):
        done = isthmus("audit", *command, at=tmp_path)
        assert (done.code, "there is no journal" in done.err) == (2, True)


def test_a_loss_is_refused_until_a_person_accepts_it(desk: Path) -> None:
    path, copy = journal(desk), desk / "copy"
    whole = isthmus("audit", "accept-loss", "nothing happened", at=desk)
    assert (whole.code, "no record is missing" in whole.err) == (2, True)
    shutil.copy(path, copy)
    writer = SqliteJournal(path)
    writer.append(1, some_events(3))
    writer.close()
    shutil.copy(copy, path)
    cut = isthmus("audit", "verify", "--json", at=desk)
    assert (cut.code, cut.json["first_bad"]) == (4, 61)
    assert "3 records are missing" in cut.json["error"]
    assert isthmus("order", "list", at=desk).code == 1
    assert isthmus("audit", "accept-loss", " ", at=desk).code == 2
    done = isthmus("audit", "accept-loss", "the disk of desk 3 died", "--json", at=desk)
    assert done.json == {"status": "accepted", "lost": 3, "last": 60, "reason": "the disk of desk 3 died"}
    assert isthmus("audit", "verify", "--json", at=desk).json["records"] == 61
    last = rows_on_disk(path)[-1].body.decode()
    assert re.search(r'"type":"Halted".*3 records after record 60 were lost: the disk of desk 3 died', last)


def test_an_edit_is_not_a_loss_to_accept(desk: Path) -> None:
    rows = rows_on_disk(journal(desk))
    del rows[50]
    rewrite(journal(desk), rows)
    done = isthmus("audit", "accept-loss", "who cares", at=desk)
    assert (done.code, "record 51 is missing" in done.err) == (1, True)
