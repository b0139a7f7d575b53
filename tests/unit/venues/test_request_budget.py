"""The request budget: windows on the exchange's clock, room for cancels, and a full stop when the exchange says so."""

import pytest

from agent.venues.ccxt_exchange.request_budget import BANNED_CANCEL_NS, MINUTE_NS, NOTES, TEN_SECONDS_NS, RequestBudget

START_NS = 1_700_000_000 * 10**9 // MINUTE_NS * MINUTE_NS


class Hand:
    """A clock that a test turns by hand."""

    def __init__(self) -> None:
        self.ns = START_NS

    def now_ns(self) -> int:
        return self.ns

    async def sleep(self, seconds: float) -> None:
        self.ns += int(seconds * 1e9)


@pytest.fixture
def clock() -> Hand:
    return Hand()


def used_up(budget: RequestBudget, kind: str) -> int:
    count = 0
    while budget.take(1, kind) == 0:  # type: ignore[arg-type]
        count += 1
        assert count <= 1_000
    return count


def test_reads_leave_room_for_orders_and_orders_for_cancels(clock: Hand) -> None:
    budget = RequestBudget(clock, 100, 1_000, {})
    assert used_up(budget, "read") == 80
    assert used_up(budget, "trade") == 15
    assert used_up(budget, "cancel") == 5


def test_the_window_begins_anew_on_the_exchange_s_clock(clock: Hand) -> None:
    budget = RequestBudget(clock, 10, 1_000, {})
    budget.offset_ns = 20 * 10**9
    assert used_up(budget, "cancel") == 10
    assert budget.take(1, "cancel") == MINUTE_NS - 20 * 10**9
    clock.ns += MINUTE_NS - 20 * 10**9
    assert budget.take(1, "cancel") == 0


def test_orders_have_a_window_of_their_own(clock: Hand) -> None:
    budget = RequestBudget(clock, 1_000, 3, {})
    assert used_up(budget, "trade") == 3
    assert budget.take(1, "trade") == TEN_SECONDS_NS
    assert budget.take(1, "read") == 0


def test_the_exchange_s_own_count_wins_when_it_is_higher(clock: Hand) -> None:
    budget = RequestBudget(clock, 100, 10, {})
    budget.heard(200, {"X-MBX-USED-WEIGHT-1M": "79", "x-mbx-order-count-10s": "10"})
    assert used_up(budget, "read") == 1
    assert budget.take(1, "trade") > 0
    budget.heard(200, {"X-MBX-USED-WEIGHT-1M": "3"})
    assert budget.weight.used == 80


@pytest.mark.parametrize(
    ("status", "headers", "seconds"), [(429, {"Retry-After": "7"}, 7), (418, {"retry-after": "900"}, 900), (429, {}, 60)]
)
def test_too_many_stops_what_is_new_until_the_named_moment(clock: Hand, status: int, headers: dict[str, str], seconds: int) -> None:
    budget = RequestBudget(clock, 100, 10, {})
    budget.offset_ns = 123 * 10**9  # the exchange's clock has no say in it
    assert budget.stopped() == ("", 0)
    budget.heard(status, headers)
    for kind in ("read", "trade"):
        assert budget.take(1, kind) == seconds * 10**9  # type: ignore[arg-type]
    assert budget.stopped()[1] == START_NS + seconds * 10**9
    clock.ns += seconds * 10**9
    assert budget.take(1, "trade") == 0
    assert budget.stopped() == ("", 0)


def test_cancels_pass_a_limit_and_one_now_and_then_a_ban(clock: Hand) -> None:
    budget = RequestBudget(clock, 1_000, 10, {})
    budget.heard(429, {"Retry-After": "100"})
    assert [budget.take(1, "cancel") for _ in range(3)] == [0, 0, 0]
    budget.heard(418, {"Retry-After": "100"})
    assert (budget.take(1, "cancel"), budget.take(1, "cancel")) == (0, BANNED_CANCEL_NS)
    clock.ns += BANNED_CANCEL_NS
    assert (budget.take(1, "cancel"), budget.take(1, "cancel")) == (0, BANNED_CANCEL_NS)
    assert budget.take(1, "read") == 90 * 10**9


@pytest.mark.parametrize("status", [429, 418])
def test_the_end_of_a_ban_is_found_again_after_a_restart(clock: Hand, status: int) -> None:
    notes: dict[str, str] = {}
    RequestBudget(clock, 100, 10, notes).heard(status, {"Retry-After": "900"})
    assert notes == {NOTES[status]: str(START_NS + 900 * 10**9)}
    assert RequestBudget(clock, 100, 10, notes).take(1, "read") == 900 * 10**9
    assert RequestBudget(clock, 100, 10, {NOTES[status]: "soon"}).take(1, "read") == 0


@pytest.mark.parametrize("text", ["", "-5", "1e9", "٣", "9" * 40])
def test_odd_headers_count_for_nothing(clock: Hand, text: str) -> None:
    budget = RequestBudget(clock, 100, 10, {})
    budget.heard(200, {"X-MBX-USED-WEIGHT-1M": text})
    assert budget.weight.used == 0
