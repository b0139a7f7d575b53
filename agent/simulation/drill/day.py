"""One day, from one number: the agent trades at two exchanges and on a chain while everything goes wrong; then it must come right.

First the faults: parents of all kinds, kills and restarts, the laws (`laws`) watched at every record. Then the faults end, and
within a bound every order must end too, nobody may stay in doubt, and the journal must say what the venues and the chain say.
"""

import asyncio
from collections.abc import Sequence

import msgspec

from agent.domain.errors import JournalError
from agent.domain.instrument import Side
from agent.domain.intent import Intent
from agent.domain.order import SETTLED
from agent.domain.plan import ChainPlan
from agent.engine.state import State
from agent.engine.world import Rules
from agent.journal.codec import GENESIS, Row
from agent.journal.memory import MemoryJournal
from agent.risk.limits import Limits
from agent.settlement.knobs import Knobs
from agent.simulation.drill.chain import Chain
from agent.simulation.drill.clock import SECOND, START_NS, Dice, HangError, dice, warped, world_ns
from agent.simulation.drill.exchange import Exchange
from agent.simulation.drill.faults import Weather
from agent.simulation.drill.gusts import Gusts
from agent.simulation.drill.laws import Laws, Violation
from agent.simulation.drill.life import BugError, Death, Life
from agent.simulation.drill.market import EXCHANGES, wish
from agent.simulation.drill.play import PlayLatch
from agent.simulation.drill.reckoning import reckon
from agent.simulation.drill.telling import dump, told

STEP_S = 0.5
STORM_S = 60  # how long the faults last at most
READY_S = 120
QUIET_S = 400  # after the faults: until everything must have ended
REMIND_NS = 15 * SECOND
TAIL = 30
PESTER_S = 8.0


class Day(msgspec.Struct, frozen=True):
    """What became of one seed. `head`: the journal's last hash; the same seed gives the same."""

    seed: int
    violations: tuple[Violation, ...]
    head: str
    records: int
    seconds: float  # simulated
    parents: int
    orders: int
    fills: int
    kills: int
    restarts: int
    reorgs: int
    struck: dict[str, int]
    tail: tuple[str, ...] = ()  # the last records of a day that went wrong
    doubt_s: float = 0.0  # how long an order was in doubt at most, after the faults


class OverError(Exception):
    """The day is so bad that it ends here."""


class Scene:
    """Owns one day. `play` runs it."""

    def __init__(self, seed: int, only: Sequence[str] = ()) -> None:
        self.seed, self.weather, self.roll = seed, Weather(seed, only), dice(seed, "scene")
        self.exchanges = [Exchange.open(name, seed) for name in EXCHANGES]
        self.chain, self.latch = Chain.open(seed), PlayLatch()
        self.laws = Laws(self.exchanges, self.chain, self.weather, self.latch)
        self.gusts = Gusts(self.exchanges, self.chain, self.weather, self.latch)
        self.rules = _rules(self.roll)
        for exchange in self.exchanges:
            exchange.ledger.haste = self.roll.pick((0, 60, 90, 100))
            exchange.ledger.appetite = self.roll.pick((0, 3, 30))
            exchange.ledger.base //= self.roll.pick((1, 1, 1, 5))  # some accounts have less than their parents want
        self.chain.ledger.block_ns = self.roll.pick((1, 1, 2, 4)) * SECOND
        self.kills = self.restarts = 0
        self.accepted: dict[str, Intent] = {}
        self._left = self.weather.dice.between(1, 3) if self.weather.has("kill") else 0
        self._is_power_lost = self.weather.has("power-loss")
        self._reminded_ns = START_NS
        self.life = self._born([])

    # -- life and death ------------------------------------------------------------------------------------------------

    def _born(self, rows: list[Row], *, is_recovery: bool = False) -> Life:
        weather = self.weather
        is_again = is_recovery and weather.strikes("kill-in-recovery")
        is_doomed = is_again or (self._left > 0 and weather.has("kill")) or (weather.has("power-loss") and self.restarts < 2)
        death = Death(weather, is_doomed=is_doomed, is_soon=is_again)
        skew_ns = weather.dice.between(-4 * SECOND, 4 * SECOND) if weather.strikes("clock-ahead") else 0
        self.life = Life(self.exchanges, self.chain, weather, self.latch, self.laws, self.rules, rows, death, skew_ns)
        return self.life

    async def _reborn(self) -> None:
        """The process has ended, or must: it is started again over what is left of its journal."""
        life = self.life
        is_killed = life.journal.trouble == "killed"
        if not life.trouble and life.task.done():
            self.laws.broken("alive", "the agent stopped by itself")
        if not is_killed and not life.journal.trouble and life.task.done() and not life.task.cancelled():
            error = life.task.exception()
            if error is not None and not isinstance(error, BugError):
                self.laws.broken("alive", f"{type(error).__name__}: {error}")
        await life.kill()
        if is_killed:
            self.kills, self._left = self.kills + 1, self._left - 1
            self.weather.count("kill")
        is_cut = is_killed and self._is_power_lost
        if is_cut:
            self.weather.count("power-loss")
        self.restarts += 1
        rows = life.journal.remains(is_power_lost=is_cut)
        for _ in range(self.weather.dice.pick((0, 0, 1, 4, 30))):  # the world goes on without the agent
            await asyncio.sleep(STEP_S)
            self._turn(life)
        self._born(rows, is_recovery=True)
        await asyncio.sleep(0)
        for name in self.accepted.keys() - self.life.engine.state.parents.keys():
            if self.life.engine.state.seq:
                self.laws.broken("acked", f"{name} was accepted, and the journal has forgotten it")

    async def _step(self) -> None:
        """Half a second of the world."""
        await asyncio.sleep(STEP_S)
        now_ns = world_ns()
        if self.laws.is_over:
            raise OverError
        self._turn(self.life)
        if self.life.trouble or self.life.task.done():
            await self._reborn()
        self.laws.steady()
        if now_ns > self._reminded_ns + REMIND_NS:
            self._reminded_ns = now_ns
            self.life.engine.remind()

    def _turn(self, life: Life) -> None:
        """The world, with or without the agent."""
        now_ns = world_ns()
        for exchange in self.exchanges:
            exchange.advance(now_ns)
        self.chain.advance(now_ns)
        self.gusts.blow(life.clock)

    # -- the day ---------------------------------------------------------------------------------------------------------

    async def play(self) -> Day:
        doubt_s = 0.0
        try:
            await self._storm()
            self.weather.clear()
            self.gusts.calm()
            self.life.death.spare()
            doubt_s = await self._quiet()
            await self._reckon()
            await self._quiet()  # a look may find what must be asked for
            rows = await self._over()
        except OverError:
            await self.life.kill()
            rows = self.life.journal.remains(is_power_lost=False)
        return self.summary(rows, world_ns() - START_NS, doubt_s)

    def summary(self, rows: list[Row], lasted_ns: int, doubt_s: float) -> Day:
        """What became of it."""
        state = self.life.engine.state
        head = rows[-1].hash if rows else GENESIS
        return Day(
            self.seed,
            tuple(self.laws.found),
            head,
            len(rows),
            lasted_ns / SECOND,
            len(state.parents),
            len(state.orders),
            len(state.fills),
            self.kills,
            self.restarts,
            len(self.chain.ledger.reorgs),
            self._struck(),
            tuple(told(one) for one in list(MemoryJournal(rows).read())[-TAIL:]) if self.laws.found else (),
            doubt_s,
        )

    def _struck(self) -> dict[str, int]:
        chain = self.chain.ledger
        found = self.weather.struck | {"reverts": chain.reverted, "older-mined": chain.older_mined}
        return {name: count for name, count in sorted(found.items()) if count}

    async def _storm(self) -> None:
        """The faults: parents arrive, clients change their minds, the process dies."""
        roll, weather = self.roll, self.weather
        todo = _wishes(roll, weather)
        if len({one.side for _, one in todo}) == 2 and weather.has("crossed"):
            weather.count("crossed")
        cancels = {one.intent_id: at + roll.seconds(1, 20) for at, one in todo if roll.chance(0.4)}
        switch_s = roll.seconds(5, 30) if weather.has("kill-switch") else 1e9
        stop_s = roll.seconds(3, 30) if weather.has("stop") else 1e9
        for turn in range(int(STORM_S / STEP_S)):
            now_s = turn * STEP_S
            await self._step()
            while todo and todo[0][0] <= now_s:
                if not await self._ask(todo[0][1]) and now_s < STORM_S / 2:
                    break  # asked again in a moment, when there may be a price
                todo.pop(0)
            for name in [one for one, at in cancels.items() if at <= now_s]:
                await self._cancel(name)
                del cancels[name]
            if now_s == PESTER_S:
                await self._pester()
            if now_s >= switch_s:
                switch_s = 1e9
                self.gusts.pull_switch()
            if now_s >= stop_s:
                stop_s = 1e9
                weather.count("stop")
                await self._stop_and_start()
            if not todo and now_s > 10 and not self.life.engine.state.live and not self.life.engine.state.working:
                break

    async def _ask(self, intent: Intent) -> bool:
        """A client wishes; whether it was accepted. Its deadline counts from now."""
        intent = msgspec.structs.replace(intent, deadline_ns=world_ns() + intent.deadline_ns)
        for _ in range(2 if self.weather.has("asked-twice") else 1):
            try:
                reasons = await self.life.engine.submit(intent)
            except JournalError:
                break
            if not reasons:
                self.accepted[intent.intent_id] = intent
            elif intent.intent_id in self.accepted:
                self.weather.count("asked-twice")
        return intent.intent_id in self.accepted

    async def _pester(self) -> None:
        """A client without sense, or without bounds."""
        now_ns, wishes = world_ns(), list[Intent]()
        if self.weather.has("nonsense"):
            wishes += [
                wish("none", "0", "sell", now_ns + SECOND),
                wish("late", "1", "sell", now_ns - 60 * SECOND),
                wish("dust", "0.00000001", "sell", now_ns + SECOND),
                wish("no name", "1", "buy", now_ns + SECOND),
                wish("sliced", "1", "buy", now_ns + SECOND, slices=100_000),
                wish("dear", "1", "buy", now_ns + SECOND, slippage_bps=20_000),
            ]
        if self.weather.has("runaway"):
            wishes += [wish(f"run{i}", "3", "sell" if i % 2 else "buy", now_ns + 9 * SECOND) for i in range(20)]
        for one in wishes:
            if one.intent_id == "dust" and not any(found.is_book for found in self.life.engine.world.market.instruments()):
                continue  # before a book is listed nobody knows its lot
            try:
                reasons = await self.life.engine.submit(one)
            except JournalError:
                return
            self.weather.count("runaway" if one.intent_id.startswith("run") else "nonsense")
            if not reasons and one.intent_id.startswith("run"):
                self.accepted[one.intent_id] = one
            elif not reasons:
                self.laws.broken("nonsense", f"{one.intent_id}: {one.quantity} was accepted")

    async def _cancel(self, name: str) -> None:
        try:
            await self.life.engine.cancel(name)
        except JournalError:
            return

    async def _stop_and_start(self) -> None:
        await self.life.stop()
        self.restarts += 1
        self._born(self.life.journal.remains(is_power_lost=False), is_recovery=True)

    async def _quiet(self) -> float:
        """The faults are over: every order ends. How long the last doubt took, in seconds."""
        began_ns = world_ns()
        doubt_s = 0.0
        for _ in range(int(QUIET_S / STEP_S)):
            await self._step()
            engine = self.life.engine
            if engine.state.seq and any(order.state == "UNKNOWN" for order in engine.state.working.values()):
                doubt_s = (world_ns() - began_ns) / SECOND
            is_up = engine.world.ready.issuperset(engine.world.profiles)
            is_strange = any(not one.body.order_id for one in self.chain.ledger.mempool.values())  # of somebody else, still to come
            if is_up and not engine.state.live and not engine.state.working and not engine.state.mined and not is_strange:
                return doubt_s
        engine = self.life.engine
        if waiting := engine.waiting_for():
            self.laws.broken("live", f"a venue is not ready: {waiting}")
        for parent in engine.state.live.values():
            self.laws.broken("live", f"{parent.intent.intent_id} is still worked, {engine.state.remaining(parent)} left")
        for order in [*engine.state.working.values(), *engine.state.mined.values()]:
            text = "lacks trades" if order.state in SETTLED and order.lacks_fills else "not final" if order.block else "open"
            kind = "transaction" if isinstance(order.plan, ChainPlan) else "order"
            self.laws.broken("live", f"{kind} {order.order_id} is still {order.state} ({text}); {order.reason}")
        return doubt_s

    async def _reckon(self) -> None:
        """A person looks. What struck may need explaining, and nothing else may."""
        engine = self.life.engine
        for _ in range(2):
            async with asyncio.timeout(600):
                breaks = await engine.reconcile()
            is_explained = bool(self.weather.halts)
            for one in breaks if not is_explained else ():
                self.laws.broken("breaks", f"{one.venue} {one.asset}: journal {one.journal}, outside {one.outside}; {one.cause}")
            for scope, reason in engine.state.halted.items() if not is_explained else ():
                self.laws.broken("halt", f"{scope}: {reason}")
            if not breaks and not engine.state.halted:
                return
            async with asyncio.timeout(600):
                left = await engine.adopt("the drill")
            for one in left:
                self.laws.broken(
                    "breaks", f"after a person: {one.venue} {one.asset}: {one.journal}, outside {one.outside}; {one.cause}"
                )

    async def _over(self) -> list[Row]:
        """Stop, and hold everything against everything."""
        life = self.life
        async with asyncio.timeout(600):
            await life.stop()
        if life.engine.failure:
            self.laws.broken("alive", life.engine.failure)
        reckon(self.laws)
        rows = life.journal.remains(is_power_lost=False)
        again = State()
        for record in MemoryJournal(list(rows)).read():
            again.apply(record)
        if dump(again) != dump(life.engine.state):
            self.laws.broken("replay", "the journal, read again, gives another state")
        return rows


def play(seed: int, only: Sequence[str] = ()) -> Day:
    """One day. Deterministic: the same seed and faults give the same journal, to the last hash."""
    return records(seed, only, is_told=False)[0]


def records(seed: int, only: Sequence[str] = (), *, is_told: bool = True) -> tuple[Day, list[str]]:
    """One day and every record of its journal, in words."""
    scenes: list[Scene] = []

    async def day() -> tuple[Day, list[str]]:
        scenes.append(Scene(seed, only))
        found = await scenes[0].play()
        return found, [told(one) for one in scenes[0].life.journal.read()] if is_told else []

    try:
        return warped(day())
    except HangError as error:
        scenes[0].laws.broken("flood", str(error))
        return scenes[0].summary(scenes[0].life.journal.remains(is_power_lost=False), 0, 0.0), []


def _rules(roll: Dice) -> Rules:
    claims = ("*",) if roll.chance(0.5) else ()
    knobs = Knobs(reconciliation_startup_delay_secs=5, external_order_claims=claims)
    limits = Limits({"USDT": 10**24}, {"ETH": 10**20}, gas_limit_max=3_000_000)
    return Rules(limits, roll.pick((0, 1, 10)), deadline_s=roll.pick((20, 60)), outbid_after_s=roll.pick((6, 15)), knobs=knobs)


def _wishes(roll: Dice, weather: Weather) -> list[tuple[float, Intent]]:
    """Parents and when they come; their deadlines count from then."""
    found: list[tuple[float, Intent]] = []
    for number in range(roll.between(2, 5)):
        both = roll.chance(0.5) or weather.has("crossed")
        side: Side = "buy" if both and roll.chance(0.5) else "sell"
        slices = roll.pick((1, 1, 2, 3))
        one = wish(
            f"p{number}",
            str(roll.between(2, 12)),
            side,
            roll.between(8, 40) * SECOND,
            slices=slices,
            interval_ns=roll.between(0, 4) * SECOND,
            rests=roll.chance(0.5),
            slippage_bps=roll.pick((20, 50, 100)),
        )
        found.append((2 + roll.seconds(0, 12), one))
    return sorted(found, key=lambda pair: pair[0])
