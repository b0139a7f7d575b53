"""A book is kept exactly, and every way in which it can become wrong is noticed."""

from hypothesis import given
from hypothesis import strategies as st

from agent.domain.market import BookDiff, BookSnapshot
from agent.market.book import BOOK_GAP, CROSSED_BOOK, LEVELS_MAX, NO_BOOK, PENDING_MAX, Book

SNAPSHOT = BookSnapshot("x", 100, ((99, 5), (98, 7)), ((101, 4), (103, 9)), 1)


def diff(first, last, bids=(), asks=(), at_ns=2):
    return BookDiff("x", first, last, tuple(bids), tuple(asks), at_ns)


def book(*facts):
    found = Book()
    for fact in facts:
        found.apply(fact)
    return found


def test_a_new_book_is_not_valid():
    assert book().trouble == NO_BOOK
    assert book(diff(1, 2)).trouble == NO_BOOK


def test_changes_set_replace_and_remove_levels():
    found = book(SNAPSHOT, diff(95, 101, [(99, 6), (97, 1)], [(101, 0)]), diff(102, 102, [(98, 0)], [(102, 3)]))
    assert found.is_valid
    assert found.levels(10) == (((99, 6), (97, 1)), ((102, 3), (103, 9)))
    assert found.levels(1) == (((99, 6),), ((102, 3),))
    assert (found.seq, found.at_ns) == (102, 2)


def test_removing_what_is_not_there_changes_nothing():
    assert book(SNAPSHOT, diff(101, 101, [(50, 0)], [(150, 0)])).levels(9) == book(SNAPSHOT).levels(9)


def test_early_changes_wait_for_the_snapshot_and_old_ones_are_left_out():
    found = book(diff(90, 95, [(99, 1)]), diff(96, 101, [(99, 2)]), diff(102, 104, [(99, 3)]), SNAPSHOT)
    assert found.is_valid
    assert found.seq == 104
    assert found.levels(1)[0] == ((99, 3),)


def test_the_first_change_must_cover_the_snapshot():
    found = book(SNAPSHOT, diff(102, 103))
    assert found.trouble == BOOK_GAP
    assert found.gap_count == 1


def test_after_the_first_change_the_next_begins_where_it_ended():
    assert book(SNAPSHOT, diff(95, 105), diff(106, 106)).is_valid
    assert book(SNAPSHOT, diff(95, 105), diff(105, 106)).trouble == BOOK_GAP
    assert book(SNAPSHOT, diff(95, 105), diff(107, 108)).trouble == BOOK_GAP


def test_a_repeated_change_is_ignored():
    found = book(SNAPSHOT, diff(101, 102, [(99, 1)]), diff(101, 102, [(99, 9)]), diff(103, 103))
    assert found.is_valid
    assert found.levels(1)[0] == ((99, 1),)


def test_after_a_gap_the_next_snapshot_joins_what_waited():
    found = book(SNAPSHOT, diff(103, 104, [(99, 1)]), diff(105, 106, [(98, 2)]))
    assert not found.is_valid
    found.apply(BookSnapshot("x", 104, ((99, 8),), ((101, 4),), 3))
    assert found.is_valid
    assert found.seq == 106
    assert found.levels(5)[0] == ((99, 8), (98, 2))


def test_a_snapshot_that_is_too_old_does_not_join():
    found = book(diff(200, 201), SNAPSHOT)
    assert found.trouble == BOOK_GAP
    assert found.gap_count == 1


def test_a_crossed_book_is_worth_nothing_until_the_next_snapshot():
    found = book(SNAPSHOT, diff(101, 101, [(101, 1)]), diff(102, 102, [(101, 0)]))
    assert found.trouble == CROSSED_BOOK
    found.apply(BookSnapshot("x", 103, ((99, 1),), ((100, 1),), 3))
    assert found.is_valid
    assert book(BookSnapshot("x", 1, ((5, 1),), ((5, 1),), 1)).trouble == CROSSED_BOOK


def test_snapshots_alone_replace_each_other():
    found = book(SNAPSHOT, BookSnapshot("x", 0, ((7, 1), (8, 2), (6, 0)), ((9, 1),), 5))
    assert found.is_valid
    assert found.levels(5) == (((8, 2), (7, 1)), ((9, 1),))
    assert found.at_ns == 5


def test_what_waits_and_what_is_kept_are_bounded():
    found = book(*(diff(i, i, [(1, 1)]) for i in range(1, PENDING_MAX + 500)))
    found.apply(BookSnapshot("x", 10, ((1, 1),), ((2, 1),), 1))
    assert found.trouble == BOOK_GAP  # the changes that would join were the oldest
    wide = book(BookSnapshot("x", 0, ((10**6, 1),), ((10**6 + 1, 1),), 1))
    wide.apply(diff(1, 1, [(i, 1) for i in range(1, LEVELS_MAX + 50)], [(2 * 10**6 + i, 1) for i in range(LEVELS_MAX + 50)]))
    bids, asks = wide.levels(10**6)
    assert len(bids) == len(asks) == LEVELS_MAX
    assert (bids[0], asks[0]) == ((10**6, 1), (10**6 + 1, 1))


changes = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 5)), max_size=8)


@given(st.lists(st.tuples(changes, changes), max_size=20))
def test_it_equals_two_dictionaries(rounds):
    bids, asks = {30: 1}, {60: 1}
    found = book(BookSnapshot("x", 0, ((30, 1),), ((60, 1),), 0))
    for seq, (below, above) in enumerate(rounds, 1):
        up = [(ticks + 41, lots) for ticks, lots in above]
        found.apply(diff(seq, seq, below, up))
        for side, news in ((bids, below), (asks, up)):
            for ticks, lots in news:
                side[ticks] = lots
                if not lots:
                    del side[ticks]
    assert found.is_valid
    assert found.levels(50) == (tuple(sorted(bids.items(), reverse=True)), tuple(sorted(asks.items())))
