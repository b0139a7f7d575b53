"""The join of snapshot and changes: whatever is lost or comes late, what is passed on has no gap."""

from hypothesis import given
from hypothesis import strategies as st

from agent.domain.market import BookDiff, BookSnapshot
from agent.venues.ccxt_exchange.book_join import BookJoin

NAME = "x:A/B"


def change(first: int, last: int) -> BookDiff:
    return BookDiff(NAME, first, last, ((last, last),), (), 5)


def book(seq: int) -> BookSnapshot:
    return BookSnapshot(NAME, seq, (), (), 6)


def test_changes_before_the_snapshot_are_kept_and_trimmed() -> None:
    join = BookJoin()
    for first, last in ((1, 4), (5, 9), (10, 12)):
        assert join.diff(change(first, last)) == ()
    snapshot, straddling, following = join.snapshot(book(7))
    assert (snapshot, following) == (book(7), change(10, 12))
    assert isinstance(straddling, BookDiff)
    assert (straddling.seq_first, straddling.seq_last) == (8, 9)
    assert join.diff(change(13, 13)) == (change(13, 13),)
    assert (join.seq, join.is_joined, join.changed_ns) == (13, True, 5)


def test_a_snapshot_that_is_too_old_is_refused() -> None:
    join = BookJoin()
    join.diff(change(10, 12))
    assert join.snapshot(book(8)) == ()
    assert not join.is_joined
    assert len(join.snapshot(book(9))) == 2


def test_a_gap_stops_the_flow_until_the_next_snapshot() -> None:
    join = BookJoin()
    join.snapshot(book(3))
    assert join.diff(change(5, 6)) == ()
    assert not join.is_joined
    assert join.snapshot(book(4)) == (book(4), change(5, 6))


def test_repeats_are_ignored() -> None:
    join = BookJoin()
    join.snapshot(book(9))
    assert join.diff(change(8, 9)) == ()
    assert join.is_joined


@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.sampled_from(["pass", "pass", "pass", "lose", "repeat", "snapshot", "old"])), max_size=60
    )
)
def test_what_is_passed_on_never_has_a_gap(story: list[tuple[int, str]]) -> None:
    join, seq, told = BookJoin(), 0, []
    for length, what in story:
        update = change(seq + 1, seq + length)
        seq += length
        if what != "lose":
            told += join.diff(update)
        if what == "repeat":
            told += join.diff(update)
        if what in ("snapshot", "old") and not join.is_joined:
            told += join.snapshot(book(seq if what == "snapshot" else max(seq - 2, 0)))
    known = None
    for event in told:
        if isinstance(event, BookSnapshot):
            known = event.seq
        else:
            assert event.seq_first == known + 1
            known = event.seq_last
