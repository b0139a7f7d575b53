"""Notes outlive a restart, and a broken file is an empty one."""

from pathlib import Path

from agent.journal.notes import TEXT_MAX, Notes


def test_notes_are_found_again(tmp_path: Path) -> None:
    notes = Notes(tmp_path / "n.json")
    notes["banned_until_ns"] = "17"
    notes["other"] = "x" * 1_000
    again = Notes(tmp_path / "n.json")
    assert dict(again) == {"banned_until_ns": "17", "other": "x" * TEXT_MAX}
    del again["other"]
    assert dict(Notes(tmp_path / "n.json")) == {"banned_until_ns": "17"}
    assert (tmp_path / "n.json").stat().st_mode & 0o777 == 0o600


def test_a_file_that_cannot_be_read_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "n.json"
    for text in ("", "[1]", "{", '{"a": '):
        path.write_text(text)
        assert dict(Notes(path)) == {}
    assert dict(Notes(tmp_path / "nowhere" / "n.json")) == {}
