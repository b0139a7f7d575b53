"""Ten thousand edits of a journal, each by somebody who can write its rows: all found, and the record named."""

import random

import pytest
from journal_kit import EDITS, REWRITES, some_rows

from agent.domain.errors import JournalError
from agent.journal.codec import ChainError, Row
from agent.journal.memory import MemoryJournal

LENGTH = 24
ORIGINAL = some_rows(LENGTH)
ANCHOR = (ORIGINAL[-1].seq, ORIGINAL[-1].hash)


def sweep(count: int, seed: int) -> dict[str, int]:
    """How many edits of each kind were made; every one must be found, by the chain alone."""
    dice, made = random.Random(seed), dict.fromkeys((edit.__name__ for edit in EDITS), 0)
    for round_ in range(count):
        edit, rows = EDITS[round_ % len(EDITS)], list(ORIGINAL)
        wrong = edit(rows, dice)
        if rows == ORIGINAL:
            continue  # two like records changed places
        with pytest.raises(ChainError) as found:
            MemoryJournal(rows)
        assert found.value.seq == wrong, edit.__name__
        made[edit.__name__] += 1
    return made


def test_ten_thousand_edits_are_all_found() -> None:
    made = sweep(10_500, seed=1)
    assert sum(made.values()) >= 10_000
    assert min(made.values()) > 900


@pytest.mark.nightly
def test_half_a_million_edits_are_all_found() -> None:
    assert sum(sweep(500_000, seed=2).values()) > 490_000


@pytest.mark.parametrize("rewrite", REWRITES)
def test_what_is_a_chain_again_shows_against_a_head_kept_elsewhere(rewrite: object) -> None:
    dice = random.Random(3)
    for _ in range(500):
        rows = list(ORIGINAL)
        assert callable(rewrite)
        rewrite(rows, dice)
        journal = MemoryJournal(rows)  # nothing to see in the chain alone
        with pytest.raises(ChainError, match=r"ends at record|not the one that was seen before"):
            journal.verify(ANCHOR)


def odd_types() -> list[Row]:
    row = ORIGINAL[3]
    return [
        row._replace(at_ns=str(row.at_ns)),  # type: ignore[arg-type]
        row._replace(at_ns=float(row.at_ns)),  # type: ignore[arg-type]
        row._replace(at_ns=True),
        row._replace(at_ns=None),  # type: ignore[arg-type]
        row._replace(body=row.body.decode()),  # type: ignore[arg-type]
        row._replace(body=None),  # type: ignore[arg-type]
        row._replace(hash=row.hash.encode()),  # type: ignore[arg-type]
        row._replace(hash=None),  # type: ignore[arg-type]
        row._replace(hash=row.hash.upper()),
        row._replace(hash=" " + row.hash),
        row._replace(hash=""),
        row._replace(seq=None),  # type: ignore[arg-type]
        row._replace(seq="4"),  # type: ignore[arg-type]
    ]


@pytest.mark.parametrize("row", odd_types())
def test_a_value_of_another_type_is_an_edit(row: Row) -> None:
    with pytest.raises(JournalError, match=r"journal record 4 (was changed|is missing)"):
        MemoryJournal([*ORIGINAL[:3], row, *ORIGINAL[4:]])
