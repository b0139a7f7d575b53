"""The kept head: what it claims survives torn writes and other damage, and it never claims more than was kept."""

import random
from pathlib import Path

import pytest
from journal_kit import flipped

from agent.domain.errors import JournalError
from agent.journal.codec import GENESIS
from agent.journal.head import SLOT, Head, HeadFile, check_kept, head_path, kept_head


def heads(count: int) -> list[Head]:
    dice = random.Random(1)
    return [Head(seq, dice.randbytes(32).hex()) for seq in range(1, count + 1)]


def keep(path: Path, *kept: Head) -> None:
    file = HeadFile(head_path(path))
    file.start(*kept[0])
    for head in kept[1:]:
        file.keep(*head)
    file.close()


def test_the_last_head_is_the_one_that_counts(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    assert kept_head(path) is None
    found = heads(40)
    for count in range(1, 41):
        keep(path, *found[:count])
        assert kept_head(path) == found[count - 1]
    text = head_path(path).read_text()
    assert f"40 {found[-1].hash}" in text, "people can read it too"
    keep(path, Head(0, GENESIS))
    assert kept_head(path) == (0, GENESIS), "starting anew forgets what was claimed"


def test_a_write_that_is_torn_anywhere_leaves_the_head_before(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    one, two, three = heads(3)
    keep(path, one, two)
    before = head_path(path).read_bytes()
    keep(path, one, two, three)
    after = head_path(path).read_bytes()
    changed = [i for i, (a, b) in enumerate(zip(before.ljust(len(after)), after, strict=True)) if a != b]
    assert changed
    assert changed[-1] - changed[0] < SLOT, "a write stays in one sector"
    for cut in range(changed[0], changed[-1] + 1):
        head_path(path).write_bytes(after[:cut] + before[cut:])
        assert kept_head(path) == two
    head_path(path).write_bytes(after)
    assert kept_head(path) == three


def test_damage_makes_it_claim_less_never_something_else(tmp_path: Path) -> None:
    path, dice = tmp_path / "j.sqlite", random.Random(2)
    found = heads(9)
    keep(path, *found)
    whole = head_path(path).read_bytes()
    for _ in range(1_000):
        head_path(path).write_bytes(flipped(whole, dice))
        assert kept_head(path) in (found[-1], found[-2])
    head_path(path).write_bytes(whole[: SLOT + 90])
    assert kept_head(path) in (found[-1], found[-2])
    for nothing in (b"", bytes(1024)):
        head_path(path).write_bytes(nothing)  # made, and never written
        assert kept_head(path) is None


def test_a_head_that_says_nothing_readable_is_refused(tmp_path: Path) -> None:
    """Somebody who cuts the journal's end cannot hide it by spoiling the file that would show it."""
    path, dice = tmp_path / "j.sqlite", random.Random(3)
    keep(path, *heads(9))
    whole = head_path(path).read_bytes()
    for round_ in range(500):
        data = flipped(whole[:90], dice) + flipped(whole[SLOT : SLOT + 66], dice) if round_ % 2 else whole[: dice.randrange(1, 66)]
        head_path(path).write_bytes(data)
        with pytest.raises(JournalError, match=r"is damaged.*--anchor"):
            kept_head(path)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=r"ends at record 90, but record 100 was safe .* 10 records are missing.*accept-loss"):
        check_kept(90, None, Head(100, GENESIS))
    with pytest.raises(JournalError, match="record 3 is not the one"):
        check_kept(9, "0" * 64, Head(3, GENESIS))
    check_kept(9, GENESIS, Head(3, GENESIS))


def test_a_head_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    head_path(tmp_path / "j.sqlite").mkdir()
    with pytest.raises(JournalError, match="cannot be read"):
        kept_head(tmp_path / "j.sqlite")
