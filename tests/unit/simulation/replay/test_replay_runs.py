"""Whole replays: the same words give the same journal, a killed agent goes on where it stood, and numbers mean what they say."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_kit import ALONE, TAPE_START_NS, lived, mortal, twap, wish, write_tape

from agent import observe
from agent.domain.algo import new_algo
from agent.domain.amount import group_asset, parse_amount, rescale_down, zero
from agent.domain.errors import RefusedError, UsageError
from agent.domain.intent import Intent
from agent.domain.order import OrderState
from agent.domain.price import Price
from agent.domain.trigger import Stop
from agent.engine import decide
from agent.engine.parent import Parent
from agent.engine.state import State
from agent.engine.summary import summary
from agent.journal.bars import read_bars
from agent.journal.codec import decode
from agent.journal.sqlite import SqliteJournal
from agent.simulation.drill.clock import warped
from agent.simulation.exchange.liquidity import Quote
from agent.simulation.replay.flow import moments, order_ns, recording
from agent.simulation.replay.keep import JOURNAL, SETTINGS, keep
from agent.simulation.replay.measure import measured, rms_apart, schedule, traded
from agent.simulation.replay.run import Replayed, World, ended, hand_in, replayed
from agent.simulation.replay.setting import SECOND, USER, ChainSetting, Latency, Setting

SOON = msgspec.structs.replace(ALONE, start_ns=SECOND, warm_up_ns=SECOND)
QUICK_BLOCKS = ChainSetting(block_ns=2 * SECOND)


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    observe.open_log(level="critical")
    yield
    observe.open_log()


@pytest.fixture(scope="module")
def tape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tape(tmp_path_factory.mktemp("tape") / "eth.jsonl.gz", 40)


# -- the same again ------------------------------------------------------------------------------------------------------


def test_the_same_words_give_the_same_journal(tape: Path) -> None:
    taped = msgspec.structs.replace(SOON, tape=str(tape), chain=QUICK_BLOCKS)
    modelled = msgspec.structs.replace(SOON, chain=QUICK_BLOCKS)
    for setting in (taped, modelled):
        one, other = replayed(setting, twap()), replayed(setting, twap())
        assert one.head == other.head
        assert one.state.parents["r7"].status == "FILLED"
    assert replayed(taped, twap()).head != replayed(modelled, twap()).head
    assert replayed(msgspec.structs.replace(modelled, seed=8), twap()).head != replayed(modelled, twap()).head


@pytest.mark.parametrize("name", ["twap", "is", "vwap"])
def test_a_parent_that_sleeps_misses_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever only waits for its next part is not looked at before: the journal is the same as if it were, to the last hash."""
    algo = new_algo(name, duration_ns=20 * SECOND, interval_ns=3 * SECOND, randomise_time_pct=30)
    setting, work = msgspec.structs.replace(SOON, chain=QUICK_BLOCKS), wish("9", seconds=40, algo=algo)
    asleep = replayed(setting, work).head
    looked_at: list[str] = []

    def awake(parent: Parent, *_: object) -> bool:
        looked_at.append(parent.intent.intent_id)
        return False

    monkeypatch.setattr(decide, "sleeps", awake)
    assert replayed(setting, work).head == asleep
    assert len(looked_at) > 100


@pytest.mark.nightly
def test_half_an_hour_in_a_thousand_slices() -> None:
    began_s = time.process_time()
    done = replayed(Setting(), twap("200", 1_800, 1.8))
    assert done.state.parents["r7"].slices >= 1_000
    assert time.process_time() - began_s < 20


def test_the_market_has_its_own_time(tape: Path) -> None:
    done = replayed(msgspec.structs.replace(SOON, tape=str(tape), start_ns=5 * SECOND), twap(seconds=10))
    parent = done.state.parents["r7"]
    assert abs(parent.accepted_ns - (TAPE_START_NS + 5 * SECOND)) < SECOND // 10
    assert 8 < done.virtual_s < 11
    assert done.spent_s < 10


def test_latency_costs(tape: Path) -> None:
    """An order that is on its way for long is carried out later: nothing else differs."""
    near, far = (msgspec.structs.replace(SOON, tape=str(tape), latency=Latency(ms * 10**6, 0, 0)) for ms in (1, 900))
    first, last = (traded(replayed(setting, wish("2"))) for setting in (near, far))
    assert first[0][0] < 0.1
    assert last[0][0] == pytest.approx(0.9, abs=0.1)


def test_a_recording_can_be_begun_anywhere(tape: Path) -> None:
    """The book from the middle on is the book that the whole tape leads to."""
    found = recording(str(tape), ALONE.rules)

    def book(after_ns: int, until_ns: int) -> dict[tuple[int, int], int]:
        levels: dict[tuple[int, int], int] = {}
        for at_ns, actions in found.since(after_ns):
            if at_ns <= found.start_ns + until_ns:
                levels |= {(one.side, one.price_ticks): one.size_lots for one in actions if isinstance(one, Quote)}
        return {level: lots for level, lots in levels.items() if lots}

    assert found.length_ns == 40 * SECOND
    assert book(0, 30 * SECOND) == book(20 * SECOND, 30 * SECOND)
    assert book(0, 30 * SECOND) != book(0, 20 * SECOND)
    setting = msgspec.structs.replace(ALONE, tape=str(tape), start_ns=25 * SECOND, warm_up_ns=5 * SECOND)
    assert next(moments(setting))[0] == TAPE_START_NS + 20 * SECOND
    assert order_ns(setting) == TAPE_START_NS + 25 * SECOND


# -- what must hold ------------------------------------------------------------------------------------------------------


def checked(state: State, intent: Intent, wanted: str = "FILLED") -> None:
    """No child is lost, none counted twice, and all together are no more than the parent."""
    parent = state.parents[intent.intent_id]
    assert parent.status == wanted, parent.reason
    assert len(set(parent.orders)) == len(parent.orders)
    assert not state.working
    selling, base = intent.side == "sell", zero(intent.quantity.asset)
    fills = [fill for name in parent.orders for fill in state.orders[name].fills]
    for fill in fills:
        base = base + rescale_down(fill.paid if selling else fill.received, base.asset)
    assert base == parent.filled
    assert parent.filled <= intent.quantity
    assert len({fill.key for fill in fills}) == len(fills)
    assert all(fill.at_ns <= intent.deadline_ns for fill in fills)


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    tenths=st.integers(1, 300),
    parts=st.integers(1, 12),
    side=st.sampled_from(("sell", "buy")),
    randomise=st.integers(0, 50),
    has_chain=st.booleans(),
)
def test_children_add_up_and_never_to_more(seed: int, tenths: int, parts: int, side: str, randomise: int, has_chain: bool) -> None:
    setting = msgspec.structs.replace(SOON, seed=seed, chain=QUICK_BLOCKS if has_chain else None)
    seconds = 12
    work = twap(f"{tenths / 10}", seconds, seconds / parts, side, randomise_size_pct=randomise, randomise_time_pct=randomise)  # type: ignore[arg-type]
    done = replayed(setting, work)
    checked(done.state, done.state.parents["r7"].intent)
    steps = [share for _, share in traded(done)]
    assert steps == sorted(steps)
    wanted = schedule(done.state.parents["r7"].intent)
    assert wanted is not None
    assert [share for _, share in wanted] == sorted(share for _, share in wanted)


def test_the_journal_and_the_venues_agree_in_the_end() -> None:
    async def play() -> None:
        world = World(msgspec.structs.replace(SOON, chain=QUICK_BLOCKS))
        intent = twap("30", 20, 5)(world.clock.now_ns() + SECOND)
        world.fund(intent)
        world.begin()
        engine = world.engine(mortal([]))
        running = asyncio.create_task(engine.run())
        await engine.ready()
        await hand_in(engine, intent)
        await ended(engine, intent)
        await asyncio.sleep(10)  # for blocks that make what is in them final
        checked(engine.state, intent)
        assert any(order.plan.venue == "pools" for order in engine.state.orders.values()), "both kinds of venues took part"
        assert await engine.reconcile() == []
        await engine.stop()
        await running
        await world.end()

    warped(play())


# -- killed and started again --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chain", [None, QUICK_BLOCKS], ids=["alone", "with pools"])
@pytest.mark.parametrize("kills_s", [(7.0,), (4.02,), (4.06, 4.5, 9.0), (0.01, 2.001, 2.041, 2.062, 13.9)], ids=str)
def test_a_killed_agent_goes_on_where_the_order_stood(kills_s: tuple[float, ...], chain: ChainSetting | None) -> None:
    """Also when it dies with a request under way: then the next agent asks what became of it, and sends nothing twice."""
    setting = msgspec.structs.replace(SOON, chain=chain)
    world, state, intent, _ = warped(lived(setting, twap("20", 16, 2), kills_s))
    checked(state, intent)
    sold = sum(fill.size_lots for fill in world.exchange.venue.fills[USER])
    on_chain = 0 if world.chain is None else 10**18 * 60 - world.chain.held[next(iter(world.chain.held))]
    whole = parse_amount("20", group_asset("ETH")).units
    assert abs(sold * 10**14 + on_chain - whole) <= 10**14, "what the venues saw is the order, but for less than a lot"
    assert all(order.state is not OrderState.UNKNOWN for order in state.orders.values())


# -- numbers -------------------------------------------------------------------------------------------------------------


def test_the_distance_of_two_courses() -> None:
    assert rms_apart([(0, 1.0)], [(0, 1.0)], 10) == 0
    assert rms_apart([(5, 1.0)], [(0, 1.0)], 10) == pytest.approx(0.5**0.5), "nothing for half of the time"
    assert rms_apart([(0, 0.5)], [(0, 1.0)], 10) == pytest.approx(0.5)
    assert rms_apart([], [], 10) == 0


@pytest.mark.parametrize("side", ["sell", "buy"])
def test_the_cost_of_a_filled_order_is_its_distance_from_arrival(side: str) -> None:
    done = replayed(SOON, twap(side=side))  # type: ignore[arg-type]
    found, numbers = summary(done.state, "r7"), measured(done)
    assert found.arrival_bps is not None
    assert numbers.shortfall_bps == pytest.approx(-found.arrival_bps, abs=1e-6)
    assert numbers.shortfall_bps > 0
    assert numbers.filled_share == 1
    assert numbers.tracking_pct is not None
    assert 0 < numbers.tracking_pct < 20


def test_what_was_not_traded_counts_as_if_it_were_taken_in_the_end() -> None:
    """Nothing can be had at that limit. Then the cost is what the exchange's book gives, and its fee of 10 bps with it."""
    never = wish("5", seconds=8, limit=Price(3_000, 1))
    done = replayed(SOON, never)
    numbers, parent = measured(done), done.state.parents["r7"]
    assert (numbers.status, numbers.filled_share, numbers.orders) == ("EXPIRED", 0, 0)
    arrival = int(parent.arrival.num) / int(parent.arrival.den)
    assert numbers.shortfall_bps == pytest.approx((arrival - done.rest_price) / arrival * 1e4)
    again = replayed(msgspec.structs.replace(SOON, taker_fee_pips=0), never)
    assert numbers.shortfall_bps - measured(again).shortfall_bps == pytest.approx(10, abs=0.1)
    assert numbers.tracking_pct is None
    assert replayed(SOON, wish("5")).rest_price == 0, "nothing was left"


# -- refused -------------------------------------------------------------------------------------------------------------


def test_an_order_that_is_refused_says_why() -> None:
    with pytest.raises(RefusedError, match=r"0.001 ETH is below the smallest order that any venue takes: at least 0.0018"):
        replayed(SOON, twap("0.001", 40, 2))
    with pytest.raises(RefusedError, match=r"20 parts of 0.02 ETH are below .* at most 10 parts"):
        replayed(SOON, twap("0.02", 40, 2))
    with pytest.raises(RefusedError, match=r"the interval 9 s is longer than the duration: at most 4 s"):
        replayed(SOON, twap("5", 4, 9))


def test_a_tape_of_something_else(tape: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has nothing of BTCUSDT, it is of ETHUSDT"):
        recording(str(tape), msgspec.structs.replace(ALONE, base="BTC").rules)
    with pytest.raises(UsageError, match=r"cannot read the tape .*none.gz: No such file"):
        recording(str(tmp_path / "none.gz"), ALONE.rules)
    (tmp_path / "odd.gz").write_bytes(b"no tape")
    with pytest.raises(UsageError, match="cannot read the tape"):
        recording(str(tmp_path / "odd.gz"), ALONE.rules)


def test_a_kept_journal_is_the_same_journal(tmp_path: Path) -> None:
    done = replayed(SOON, twap())
    keep(done.rows, tmp_path / "kept")
    journal = SqliteJournal(tmp_path / "kept" / JOURNAL, read_only=True)
    assert journal.head == (len(done.rows), done.head)
    assert [record.event for record in journal.read()] == [decode(row).event for row in done.rows]
    journal.close()
    assert (tmp_path / "kept" / SETTINGS).exists()
    with pytest.raises(UsageError, match="holds a journal already"):
        keep(done.rows, tmp_path / "kept")


def test_what_the_market_did_can_be_kept(tmp_path: Path) -> None:
    done = replayed(SOON, twap(), lingers=True, home=tmp_path)
    bars = read_bars(tmp_path, "ETH/USDT")
    parent = done.state.parents["r7"]
    assert bars[0].start_s <= parent.accepted_ns // SECOND
    assert bars[-1].start_s >= (parent.ended_ns + 60 * SECOND) // SECOND
    assert done.played_s > done.virtual_s + 60
    assert all(order.mark(10 * SECOND) is not None for order in done.state.orders.values() if order.fills)


def test_an_order_waits_for_its_price() -> None:
    """The market begins at 2683.80: a stop a little below it is reached before long, and only then is anything sold."""
    done = replayed(SOON, wish("4", seconds=600, trigger=Stop(Price(26_832, 10))))
    parent = done.state.parents["r7"]
    assert parent.status == "FILLED"
    assert parent.triggered_ns > parent.accepted_ns
    assert all(fill.at_ns >= parent.triggered_ns - SECOND for order in done.state.orders.values() for fill in order.fills)


def test_a_replay_knows_its_own_end(tape: Path) -> None:
    done: Replayed = replayed(msgspec.structs.replace(SOON, tape=str(tape), start_ns=35 * SECOND), wish("3", seconds=100))
    assert done.state.parents["r7"].status == "FILLED"
