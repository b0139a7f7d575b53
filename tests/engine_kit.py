"""A small scripted market for tests of the engine: a book and a pool that misbehave on a seed, in time that costs nothing.

Both venues keep their own truth (who was asked what, what traded, what is left), so a test can hold the journal against it. They
stand behind the port `Venue` and keep its promises: an order's fills come before its end; what they say in a snapshot is certain.
"""

import asyncio
import contextlib
import heapq
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from agent.domain.amount import Amount, Asset, encode_hook, group_asset, parse_amount, zero
from agent.domain.errors import OutcomeUnknown, VenueError
from agent.domain.events import GasPaid, OrderFilled, OrderReported, VenueConnected
from agent.domain.instrument import Instrument, Pool
from agent.domain.intent import Intent
from agent.domain.market import BookSnapshot, ChainHead, Listed, PoolReserves
from agent.domain.order import SETTLED, Fill, OrderRef, OrderState
from agent.domain.plan import (
    Approved,
    ApproveToken,
    Call,
    Calls,
    PlaceOrder,
    Signed,
    SignedRequest,
    SignedTransaction,
    SwapBatch,
    Unsigned,
    VenueRequest,
)
from agent.engine.loop import Engine
from agent.engine.state import State
from agent.engine.world import Rules
from agent.journal.codec import Row
from agent.journal.memory import MemoryJournal
from agent.market.view import Market
from agent.ports import Allowance, Clock, PrivateFact, Profile, Signer, Snapshot, Venue, VenueEvent
from agent.risk.limits import Limits

T = TypeVar("T")
START_NS = 1_800_000_000 * 10**9
CHAIN_ID = 31_337
MAIN = "main"
USDT_UNITS, ETH_UNITS = 250_000, 60
PERMIT2 = "0x" + "22" * 20

CEX_ETH = Asset("ETH", "cex", 8, "ETH")
CEX_USDT = Asset("USDT", "cex", 8, "USDT")
BOOK = Instrument("cex", "ETH/USDT", CEX_ETH, CEX_USDT, 1_000, 10**6, 10**4, 5 * 10**8)
HOME = f"eip155:{CHAIN_ID}"
WETH = Asset("WETH", HOME, 18, "ETH", "0x" + "aa" * 20)
USDT = Asset("USDT", HOME, 6, "USDT", "0x" + "bb" * 20)
COIN = Asset("ETH", HOME, 18, "ETH")
POOL = Instrument("amm", "v2", WETH, USDT, 100, pool=Pool("v2", "0x" + "cc" * 20, WETH.address, USDT.address), gas=120_000)
ETH = group_asset("ETH")
RULES = Rules(Limits({"USDT": 10**24}, {"ETH": 10**20}, gas_limit_max=3_000_000))


# -- time --------------------------------------------------------------------------------------------------------------


class WarpLoop(asyncio.SelectorEventLoop):
    """Time jumps to the next timer when nothing else is left to do."""

    warp = 0.0

    def time(self) -> float:
        return self.warp

    def _run_once(self) -> None:
        waiting: list[Any] = self._scheduled  # type: ignore[attr-defined]
        while waiting and waiting[0].cancelled():
            heapq.heappop(waiting)._scheduled = False
            self._timer_cancelled_count -= 1  # type: ignore[attr-defined]
        if not self._ready and waiting:  # type: ignore[attr-defined]
            self.warp = max(self.warp, waiting[0].when())
        super()._run_once()  # type: ignore[misc]


class WarpClock:
    """Satisfies the port `Clock` on a `WarpLoop`."""

    def now_ns(self) -> int:
        return START_NS + int(asyncio.get_running_loop().time() * 10**9)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def warped(work: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=WarpLoop) as runner:
        return runner.run(work)


# -- venues ------------------------------------------------------------------------------------------------------------


class Habits(msgspec.Struct):
    """How a scripted venue behaves. `send` picks from these; chances are of one thing going wrong."""

    sends: tuple[str, ...] = ("reply",)
    twice: float = 0.0  # a fact is told again
    drop: float = 0.0  # the stream breaks and what was queued is lost
    deaf: float = 0.0  # a snapshot fails
    partial: float = 0.0  # an order fills only in part
    delay_s: float = 0.0  # at most, for each fact on the stream


class Truth(msgspec.Struct):
    """An order as the venue has it."""

    plan: Any
    state: OrderState
    facts: list[PrivateFact]
    sent_ns: int
    nonce: int = 0
    block: int = 0


class Scripted:
    """What both venues share: a stream that delivers late and twice, and the record of what arrived."""

    def __init__(self, profile: Profile, clock: Clock, seed: int, habits: Habits | None = None) -> None:
        self._profile, self.clock = profile, clock
        self.habits = habits or Habits()
        self.rng = random.Random(f"{seed}{profile.name}")
        self.truth: dict[str, Truth] = {}
        self.arrivals: list[str] = []  # every send that reached the venue, by order id
        self.holding: dict[Asset, int] = {}
        self.plans: dict[str, Any] = {}
        self.is_down = False
        self._queue: asyncio.Queue[VenueEvent | None] = asyncio.Queue()
        self._trades = 0
        self.tasks: set[asyncio.Task[None]] = set()

    @property
    def profile(self) -> Profile:
        return self._profile

    async def close(self) -> None:
        for task in list(self.tasks):
            task.cancel()

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def tell(self, facts: Sequence[VenueEvent]) -> None:
        """Deliver in order, each a little late, some twice."""

        async def deliver() -> None:
            for fact in facts:
                await asyncio.sleep(self.rng.uniform(0, self.habits.delay_s))
                for _ in range(1 + (self.rng.random() < self.habits.twice)):
                    self._queue.put_nowait(fact)

        self.later(deliver())

    def push(self, *facts: VenueEvent) -> None:
        for fact in facts:
            self._queue.put_nowait(fact)

    def cut(self) -> None:
        self._queue.put_nowait(None)

    def trade_id(self) -> str:
        self._trades += 1
        return f"t{self._trades}"

    def move(self, fill: Fill) -> None:
        self.holding[fill.paid.asset] -= fill.paid.units
        self.holding[fill.received.asset] += fill.received.units
        self.holding[fill.fee.asset] -= fill.fee.units

    async def stream(self) -> AsyncIterator[VenueEvent]:
        if self.is_down:
            raise VenueError(f"{self.profile.name} is down")
        self._queue = asyncio.Queue()  # what was under way is lost
        told: set[str] = set()
        for fact in self.opening():
            yield fact
        while True:
            try:
                async with asyncio.timeout(1.0):
                    event = await self._queue.get()
            except TimeoutError:
                if self.rng.random() < self.habits.drop:
                    raise VenueError("the connection was reset") from None
                for fact in self.pulse():
                    yield fact
                continue
            if event is None or self.is_down:
                raise VenueError("the connection was cut")
            for fact in (*self._missed(event, told), event):
                if isinstance(fact, OrderFilled):
                    told.add(fact.fill.key)
                yield fact

    def _missed(self, event: VenueEvent, told: set[str]) -> list[VenueEvent]:
        """An order's end is never told before its fills, although some of them were told to an earlier connection."""
        truth = self.truth.get(event.order_id) if isinstance(event, OrderReported) and event.state in SETTLED else None
        known = truth.facts if truth is not None else []
        return [fact for fact in known if isinstance(fact, OrderFilled) and fact.fill.key not in told]

    async def snapshot(self, asked: Sequence[OrderRef] = ()) -> Snapshot:
        if self.is_down or self.rng.random() < self.habits.deaf:
            raise VenueError(f"{self.profile.name} does not answer")
        facts = [fact for ref in asked for fact in self.certain(ref)]
        await asyncio.sleep(0)
        balances = tuple(Amount(units, asset) for asset, units in self.holding.items())
        return Snapshot(self.profile.name, MAIN, balances, (), tuple(facts), self.mined(), self.clock.now_ns())

    def mined(self) -> int | None:
        return None

    def opening(self) -> Sequence[VenueEvent]:
        raise AssertionError("each venue has its own")

    def pulse(self) -> Sequence[VenueEvent]:
        raise AssertionError("each venue has its own")

    def certain(self, ref: OrderRef) -> Sequence[PrivateFact]:
        raise AssertionError("each venue has its own")


class ScriptedBook(Scripted):
    """An endless book at one price. Sends: reply, quiet, refuse, reject, lost_done, lost_gone, late, hang, early."""

    GONE_NS = 8_000_000_000  # after this an order that did not arrive cannot arrive any more

    def __init__(self, clock: Clock, seed: int, habits: Habits | None = None) -> None:
        super().__init__(Profile("cex", "scripted", False, None), clock, seed, habits)
        self.holding = {CEX_ETH: ETH_UNITS * 10**8, CEX_USDT: USDT_UNITS * 10**8}
        self.bid, self.seq = 268_300, 0
        self.depth = 400_000  # lots on each level

    def opening(self) -> Sequence[VenueEvent]:
        return (VenueConnected("cex"), Listed("cex", (BOOK,), self.clock.now_ns()), *self.pulse())

    def pulse(self) -> Sequence[VenueEvent]:
        self.seq += 1
        bids = tuple((self.bid - i, self.depth) for i in range(5))
        asks = tuple((self.bid + 1 + i, self.depth) for i in range(5))
        return (BookSnapshot(BOOK.id, self.seq, bids, asks, self.clock.now_ns()),)

    def build(self, approved: Approved) -> Unsigned:
        plan = approved.plan
        assert isinstance(plan, PlaceOrder)
        self.plans[plan.order_id] = plan
        return VenueRequest(plan.order_id, "cex", "place", ())

    async def send(self, signed: Signed) -> Sequence[PrivateFact]:
        plan = self.plans[signed.order_id]
        how = self.rng.choice(self.habits.sends)
        await asyncio.sleep(self.rng.uniform(0, self.habits.delay_s))
        if how == "refuse":
            raise VenueError("too many requests")
        self.arrivals.append(plan.order_id)
        match how:
            case "reject":
                return (OrderReported(plan.order_id, OrderState.REJECTED, "-2010 not today"),)
            case "lost_gone":
                raise OutcomeUnknown("no reply")
            case "late":
                self.later(self._late(plan))
                raise OutcomeUnknown("504")
        facts = self.execute(plan)
        if how == "lost_done":
            self.tell(facts)
            raise OutcomeUnknown("no reply")
        if how == "hang":
            await asyncio.sleep(3_600)
        if how == "early":
            self.push(*facts, *facts)
            await asyncio.sleep(0.2)
        if how == "quiet":
            self.tell(facts)
            return (OrderReported(plan.order_id, OrderState.OPEN),)
        self.tell(facts)
        return facts

    async def _late(self, plan: PlaceOrder) -> None:
        await asyncio.sleep(self.rng.uniform(0.5, 5))
        self.tell(self.execute(plan))

    def execute(self, plan: PlaceOrder) -> list[PrivateFact]:
        lots = plan.lots
        if self.rng.random() < self.habits.partial:
            lots = self.rng.randint(0, plan.lots)
        cuts = sorted(self.rng.randint(0, lots) for _ in range(self.rng.randint(0, 2)))
        sizes = [b - a for a, b in zip([0, *cuts], [*cuts, lots], strict=True) if b > a]
        fills = [self._fill(plan, size) for size in sizes]
        self.rng.shuffle(fills)
        state = OrderState.FILLED if lots == plan.lots else OrderState.CANCELLED
        facts: list[PrivateFact] = [OrderFilled(fill) for fill in fills]
        facts.append(OrderReported(plan.order_id, state, venue_order_id=f"v{plan.order_id}"))
        self.truth[plan.order_id] = Truth(plan, state, facts, self.clock.now_ns())
        return facts

    def _fill(self, plan: PlaceOrder, lots: int) -> Fill:
        base = Amount(lots * BOOK.lot_units, CEX_ETH)
        quote = Amount(self.bid * BOOK.tick_units * base.units // 10**8, CEX_USDT)
        paid, received = (base, quote) if plan.side == "sell" else (quote, base)
        fee = Amount(-(-received.units * BOOK.fee_pips // 10**6), received.asset)
        fill = Fill(plan.order_id, "cex", BOOK.id, self.trade_id(), paid, received, fee, self.clock.now_ns())
        self.move(fill)
        return fill

    def certain(self, ref: OrderRef) -> Sequence[PrivateFact]:
        known = self.truth.get(ref.order_id)
        if known is not None:
            return known.facts
        if self.clock.now_ns() > ref.sent_ns + self.GONE_NS:
            return (OrderReported(ref.order_id, OrderState.REJECTED, "never arrived"),)
        return ()


class ScriptedPool(Scripted):
    """A chain with one pool: a block a second, transactions in the order of their nonces, permits each used once.

    Sends: reply, refuse, lost_done, lost_gone (the node forgot it), hang. `reverts` batches fail in their block.
    """

    GAS = 200_000 * 2 * 10**9

    def __init__(self, clock: Clock, seed: int, habits: Habits | None = None, reverts: float = 0.0) -> None:
        contracts = (PERMIT2, WETH.address, USDT.address)
        profile = Profile("amm", "scripted", True, CHAIN_ID, contracts, "0x" + "11" * 20, PERMIT2)
        super().__init__(profile, clock, seed, habits)
        self.holding = {COIN: 5 * 10**18, WETH: ETH_UNITS * 10**18, USDT: USDT_UNITS * 10**6}
        self.reverts = reverts
        self.stall = False  # blocks come, and ours is in none of them
        self.base_fee = 10**9
        self.height, self.nonce, self.permit_nonce, self.allowance = 100, 0, 0, 0
        self.pending: dict[int, Truth] = {}
        self.blunders: list[str] = []  # what a careful wallet never does
        self.reserve_eth, self.reserve_usdt = 10_000 * 10**18, 10_000 * 2_683 * 10**6

    def start(self) -> None:
        self.later(self._mine())

    def opening(self) -> Sequence[VenueEvent]:
        listed = Listed("amm", (POOL,), self.clock.now_ns())
        return (listed, VenueConnected("amm"), *self.pulse(), *self._allowances())

    def pulse(self) -> Sequence[VenueEvent]:
        now_ns = self.clock.now_ns()
        head = ChainHead(CHAIN_ID, self.height, hex(self.height), hex(self.height - 1), self.base_fee, now_ns // 10**9, now_ns)
        return (head, PoolReserves(POOL.id, self.reserve_eth, self.reserve_usdt, self.height, now_ns))

    def _allowances(self) -> Sequence[VenueEvent]:
        now_ns = self.clock.now_ns()
        return (Allowance("amm", WETH.id, self.allowance, self.permit_nonce, now_ns), Allowance("amm", USDT.id, 0, 0, now_ns))

    def mined(self) -> int | None:
        return self.nonce

    def build(self, approved: Approved) -> Unsigned:
        plan, nonce = approved.plan, approved.nonce
        assert isinstance(plan, SwapBatch | ApproveToken)
        assert nonce is not None
        self.plans[plan.order_id] = plan
        call = Call("0x" + "dd" * 20, plan.order_id.encode())
        return Calls(plan.order_id, CHAIN_ID, (call,), (), nonce, plan.gas_limit, plan.gas_fee_max, plan.gas_tip)

    async def send(self, signed: Signed) -> Sequence[PrivateFact]:
        assert isinstance(signed, SignedTransaction)
        order_id = signed.order_id
        how = self.rng.choice(self.habits.sends)
        known = self.truth.get(order_id)
        await asyncio.sleep(self.rng.uniform(0, self.habits.delay_s))
        if known is not None:  # the same bytes again
            raise OutcomeUnknown("already known")
        if how == "refuse" and order_id not in self.arrivals:
            raise VenueError("insufficient funds")
        self.arrivals.append(order_id)
        if how == "lost_gone":
            raise OutcomeUnknown("no reply")
        if signed.nonce != self.nonce + len(self.pending):
            self.blunders.append(f"{order_id} has nonce {signed.nonce}, the chain waits for {self.nonce}")
        truth = Truth(self.plans[order_id], OrderState.OPEN, [], self.clock.now_ns(), signed.nonce)
        self.truth[order_id] = self.pending[signed.nonce] = truth
        if how == "lost_done":
            raise OutcomeUnknown("no reply")
        if how == "hang":
            await asyncio.sleep(3_600)
        return (OrderReported(order_id, OrderState.OPEN, venue_order_id=signed.tx_hash),)

    async def _mine(self) -> None:
        while True:
            await asyncio.sleep(1)
            self.height += 1
            facts: list[VenueEvent] = list(self.pulse())
            ended: list[VenueEvent] = []
            while not self.stall and (truth := self.pending.pop(self.nonce, None)) is not None:
                self.nonce += 1
                ended += self._execute(truth)
            self.tell([*facts, *ended, *(self._allowances() if ended else ())])

    def _execute(self, truth: Truth) -> Sequence[PrivateFact]:
        plan, tx = truth.plan, f"0x{truth.nonce:064x}"
        self.holding[COIN] -= self.GAS
        gas = GasPaid(plan.order_id, MAIN, Amount(self.GAS, COIN), 200_000, tx)
        fills: list[PrivateFact] = []
        trouble = self._trouble(plan)
        truth.block = self.height
        if trouble:
            truth.state = OrderState.REVERTED
        else:
            truth.state = OrderState.MINED
            fills = [OrderFilled(fill) for fill in self._effects(plan, tx)]
        truth.facts = [*fills, gas, OrderReported(plan.order_id, truth.state, trouble, tx, self.height, tx_hash=tx)]
        return truth.facts

    def _trouble(self, plan: SwapBatch | ApproveToken) -> str:
        if isinstance(plan, ApproveToken):
            return ""
        if plan.permit_nonce != self.permit_nonce or plan.sell.units > self.allowance:
            self.blunders.append(f"{plan.order_id}: permit {plan.permit_nonce} of {self.permit_nonce}, allowance {self.allowance}")
            return "InvalidNonce"
        return "TooLittleReceived" if self.rng.random() < self.reverts else ""

    def _effects(self, plan: SwapBatch | ApproveToken, tx: str) -> Sequence[Fill]:
        if isinstance(plan, ApproveToken):
            self.allowance = plan.sell.units
            return ()
        self.permit_nonce += 1
        self.allowance -= plan.sell.units
        found = []
        for position, leg in enumerate(plan.legs):
            fill = Fill(
                plan.order_id,
                "amm",
                leg.instrument,
                f"{tx}:{position}",
                leg.sell,
                leg.buy,
                zero(leg.buy.asset),
                self.clock.now_ns(),
                tx,
            )
            self.move(fill)
            found.append(fill)
        return found

    def certain(self, ref: OrderRef) -> Sequence[PrivateFact]:
        known = self.truth.get(ref.order_id)
        if known is not None:
            return known.facts or (OrderReported(ref.order_id, OrderState.OPEN, venue_order_id=ref.tx_hash),)
        return ()


class Line:
    """A connection to a venue that dies with its process: after `cut` nothing gets through, in either direction."""

    def __init__(self, venue: Scripted) -> None:
        self._venue, self._is_cut = venue, False

    @property
    def profile(self) -> Profile:
        return self._venue.profile

    def cut(self) -> None:
        self._is_cut = True

    def stream(self) -> AsyncIterator[VenueEvent]:
        return self._venue.stream()

    def build(self, approved: Approved) -> Unsigned:
        built: Unsigned = self._venue.build(approved)  # type: ignore[attr-defined]
        return built

    async def send(self, signed: Signed) -> Sequence[PrivateFact]:
        if self._is_cut:
            raise VenueError("this process is dead")
        facts: Sequence[PrivateFact] = await self._venue.send(signed)  # type: ignore[attr-defined]
        return facts

    async def snapshot(self, asked: Sequence[OrderRef] = ()) -> Snapshot:
        return await self._venue.snapshot(asked)

    async def close(self) -> None:
        pass


class PlainSigner:
    """Signs nothing secret: a transaction's bytes are its order's name."""

    key_id = "k"

    async def sign(self, unsigned: Unsigned) -> Signed:
        if isinstance(unsigned, VenueRequest):
            return SignedRequest(unsigned.order_id, unsigned, self.key_id)
        assert isinstance(unsigned, Calls)
        tx_hash = f"0x{unsigned.nonce:02x}{unsigned.order_id.encode().hex():0>62}"
        return SignedTransaction(unsigned.order_id, CHAIN_ID, "0x" + "11" * 20, unsigned.nonce, tx_hash, unsigned.order_id.encode())


# -- desks -------------------------------------------------------------------------------------------------------------


def sale(name: str = "p1", quantity: str = "20", *, slices: int = 1, interval_ns: int = 0, within_s: int = 600) -> Intent:
    return Intent(
        name, MAIN, name, "sell", parse_amount(quantity, ETH), "USDT", 100, START_NS + within_s * 10**9, slices, interval_ns
    )


class Run:
    """One life of an engine over a journal in memory."""

    def __init__(
        self,
        venues: Mapping[str, Scripted],
        rows: list[Row] | None = None,
        journal: Any = None,
        new_signer: Callable[[], Signer] = PlainSigner,
    ) -> None:
        self.journal = journal or MemoryJournal(rows)
        self.lines = {name: Line(venue) for name, venue in venues.items()}
        signers = {name: new_signer() for name in venues}
        self.engine = Engine(self.journal, self.lines, signers, WarpClock(), RULES, Market(), MAIN)
        self.task = asyncio.create_task(self.engine.run())

    async def kill(self) -> list[Row]:
        """As `kill -9` does it: what is in the journal now is all that is left."""
        rows = list(self.journal.rows)
        for line in self.lines.values():
            line.cut()
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task
        return rows

    async def stop(self) -> list[Row]:
        await self.engine.stop("test")
        await self.task
        return list(self.journal.rows)

    async def until(self, met: Callable[[], object], seconds: float = 300) -> None:
        async with asyncio.timeout(seconds):
            while not met() and not self.task.done():  # noqa: ASYNC110 - in this loop waiting costs no time
                await asyncio.sleep(0.05)
        if not met():
            self.task.result()
            raise AssertionError("the engine ended first")


@contextlib.asynccontextmanager
async def running(venues: Mapping[str, Scripted], rows: list[Row] | None = None) -> AsyncIterator[Run]:
    """An engine that is ready; stopped at the end if it still runs."""
    run = Run(venues, rows)
    try:
        async with asyncio.timeout(300):
            await run.engine.ready()
        await run.engine.priced("ETH/USDT")
        yield run
        if not run.task.done():
            await run.stop()
    finally:
        run.task.cancel()
        await asyncio.gather(run.task, return_exceptions=True)


def venues_of(*venues: Scripted) -> dict[str, Scripted]:
    for venue in venues:
        if isinstance(venue, ScriptedPool):
            venue.start()
    return {venue.profile.name: venue for venue in venues}


def dump(state: State) -> bytes:
    """Everything that a state holds, as bytes: equal states give equal bytes."""
    fields = {name: value for name, value in vars(state).items() if name != "ledger"}
    fields |= {"ledger": state.ledger.lines(), "adopted": sorted(state.adopted), "fills": sorted(state.fills)}
    fields |= {"nonces": {venue: sorted(used.items()) for venue, used in state.nonces.items()}}
    return msgspec.json.encode(fields, enc_hook=_hook, order="sorted")


def replayed(rows: Sequence[Row]) -> State:
    state = State()
    for record in MemoryJournal(list(rows)).read():
        state.apply(record)
    return state


def _hook(value: Any) -> Any:
    if isinstance(value, set | frozenset):
        return sorted(value)
    return encode_hook(value)


def booked(state: State, venue: str) -> dict[str, Fill]:
    return {fill.trade_id: fill for order in state.orders.values() for fill in order.fills if fill.venue == venue}


def as_venue(venue: ScriptedBook | ScriptedPool) -> Venue:
    """The type checker's proof that a scripted venue satisfies the port."""
    return venue
