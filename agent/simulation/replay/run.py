"""One replay: the engine, its journal and its rules are the real ones; market, venues and time are not."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import msgspec

from agent.domain.amount import Amount, rescale_up
from agent.domain.errors import RefusedError
from agent.domain.events import IntentEnded
from agent.domain.intent import Intent
from agent.domain.plan import Reason
from agent.engine.loop import Engine
from agent.engine.state import State
from agent.engine.world import Rules
from agent.journal.bars import keep_bars
from agent.journal.codec import Row
from agent.journal.memory import MemoryJournal
from agent.market.view import Market
from agent.ports import Clock, Journal, Signer, Venue
from agent.risk.limits import Limits
from agent.simulation.drill.clock import WarpClock, warped
from agent.simulation.drill.market import COIN, USDT, WETH
from agent.simulation.drill.play import PromptPlaySigner
from agent.simulation.exchange.accounts import PIPS, UNITS_PER_ASSET
from agent.simulation.exchange.matching import BUY, SELL
from agent.simulation.replay.chain import Chain
from agent.simulation.replay.chain_line import ChainLine
from agent.simulation.replay.exchange import Exchange
from agent.simulation.replay.exchange_line import ACCOUNT, ExchangeLine
from agent.simulation.replay.flow import moments, order_ns
from agent.simulation.replay.setting import EXCHANGE, POOLS, SECOND, Setting, whole

Wish = Callable[[int], Intent]  # (now_ns) -> what the client wants
FUNDS = 3  # times what the order needs, at each place
UNLIMITED = 10**36  # of a risk limit: whoever replays an order wants to see it traded
COINS = 100  # of ether, for gas
LINGER_S = 62  # the last look at the market after a trade is a minute later
GRACE_NS = 60 * SECOND


class Replayed(msgspec.Struct):
    """What became of an order. `rows`: the journal; `virtual_s`: how long the order took; `played_s`: how long the market was
    played in all; `spent_s`: how long that took here.
    """

    intent_id: str
    state: State
    rows: list[Row]
    virtual_s: float
    played_s: float
    spent_s: float
    rest_price: float = 0.0  # what the rest would have cost or brought at once on the exchange then, after its fee; 0 without one

    @property
    def head(self) -> str:
        """The hash of the journal's newest record: the same for the same words."""
        return self.rows[-1].hash


class World:
    """Everything outside of the agent. It outlives an engine; the next one finds it as it has become."""

    def __init__(self, setting: Setting) -> None:
        """To be made on a `WarpLoop`, at its beginning: then it is the moment at which the market begins."""
        self.setting, self.clock = setting, WarpClock()
        self.exchange = Exchange(setting, self.clock, moments(setting))
        self.exchange.open()
        self.clock.skew_ns = self.exchange.now_ns - self.clock.now_ns()
        self.venues: dict[str, Venue] = {EXCHANGE: ExchangeLine(self.exchange, setting, self.clock)}
        self.chain: Chain | None = None
        if setting.chain is not None and setting.has_chain:
            self.chain = Chain(setting.chain, setting.seed, self.clock, self.mid)
            self.venues[POOLS] = ChainLine(self.chain, setting, self.clock)
        self._tasks: list[asyncio.Task[None]] = []

    def mid(self) -> Fraction | None:
        """The exchange's middle price; None while a side of its book is empty."""
        twice = self.exchange.mid_ticks_twice
        return None if twice is None else whole(twice, self.exchange.rules)

    def price_at_once(self, intent: Intent, filled: Amount) -> float:
        """What the rest of an order would trade at if it were taken from the exchange's book now, after the fee; 0 without a rest.

        Where the book does not hold all of it, the whole rest counts at what it does hold.
        """
        exchange, rules = self.exchange, self.exchange.rules
        left = rescale_up(intent.quantity, exchange.instrument.base) - rescale_up(filled, exchange.instrument.base)
        lots, value = exchange.book.sweep(SELL if intent.side == "sell" else BUY, -(-left.units // rules.lot_units))
        if left.units <= 0 or not lots:
            return 0.0
        price = value * rules.tick_units / (lots * UNITS_PER_ASSET)
        kept = 1 - exchange.venue.accounts.taker_fee_pips / PIPS
        return price * kept if intent.side == "sell" else price / kept

    def begin(self) -> None:
        """From now on time passes there."""
        parts = [self.exchange.run(), *([self.chain.run()] if self.chain is not None else [])]
        self._tasks = [asyncio.create_task(part) for part in parts]

    async def end(self) -> None:
        """Raises what ended a part of it before its time."""
        for task in self._tasks:
            task.cancel()
        for found in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(found, Exception):
                raise found

    def fund(self, intent: Intent) -> None:
        """What the order needs, and more, at each place, so that balances decide nothing."""
        exchange, rules = self.exchange, self.exchange.rules
        lots = FUNDS * -(-rescale_up(intent.quantity, exchange.instrument.base).units // rules.lot_units)
        exchange.deposit(rules.base, rules.base_units(lots))
        exchange.deposit(rules.quote, rules.quote_units(lots * (exchange.mid_ticks_twice or 0)))
        if self.chain is not None:
            base, quote = exchange.balances()
            held = {WETH: rescale_up(base, WETH).units, USDT: rescale_up(quote, USDT).units, COIN: COINS * 10**COIN.decimals}
            self.chain.held |= {asset: int(units) for asset, units in held.items()}

    def engine(self, journal: Journal) -> Engine:
        """The agent over this world, with what its journal remembers."""
        signers: dict[str, Signer] = {name: PromptPlaySigner() for name in self.venues}
        limits = Limits({self.setting.quote: UNLIMITED}, {self.setting.base: UNLIMITED})
        return Engine(journal, self.venues, signers, self.clock, Rules(limits), Market(), ACCOUNT, run_id="replay")


def replayed(setting: Setting, wish: Wish, *, lingers: bool = False, home: Path | None = None) -> Replayed:
    """Play one order. Raises RefusedError with every reason when it is refused, UsageError for a tape that cannot be used.

    `lingers`: the market goes on for a minute after the end, so that it is seen what it did after the last trades. `home`: where to
    keep what the market did, second by second, as an agent does; by default nowhere.
    """
    began_s = time.perf_counter()
    done = warped(_play(setting, wish, LINGER_S if lingers else 0, home))
    done.spent_s = time.perf_counter() - began_s
    return done


async def _play(setting: Setting, wish: Wish, linger_s: int, home: Path | None) -> Replayed:
    world, rows, due_ns = World(setting), list[Row](), order_ns(setting)
    began_ns = world.clock.now_ns()
    intent = wish(due_ns)
    world.fund(intent)
    world.begin()
    engine = world.engine(MemoryJournal(rows))
    running = asyncio.create_task(engine.run())
    keeping = asyncio.create_task(_kept_bars(home, engine.world.market, intent, world.clock))
    try:
        await engine.ready()
        await asyncio.sleep(max(due_ns - world.clock.now_ns(), 0) / SECOND)
        await engine.priced(intent.market)
        await hand_in(engine, intent)
        await ended(engine, intent)
        rest_price = world.price_at_once(intent, engine.state.parents[intent.intent_id].filled)
        if not world.exchange.is_over:
            await asyncio.sleep(linger_s)
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await engine.stop("the replay is over")
        await running
        await world.end()
    parent, ended_ns = engine.state.parents[intent.intent_id], world.clock.now_ns()
    virtual_s = ((parent.ended_ns or ended_ns) - parent.accepted_ns) / SECOND
    return Replayed(intent.intent_id, engine.state, rows, virtual_s, (ended_ns - began_ns) / SECOND, 0.0, rest_price)


async def _kept_bars(home: Path | None, market: Market, intent: Intent, clock: Clock) -> None:
    if home is not None:
        await keep_bars(home, market, lambda _: (intent.market,), clock)


async def hand_in(engine: Engine, intent: Intent) -> None:
    """Raises RefusedError with every reason."""
    reasons: Sequence[Reason] = await engine.submit(intent)
    if reasons:
        raise RefusedError("refused: " + "; ".join(f"{one.code}: {one.text}" for one in reasons))


async def ended(engine: Engine, intent: Intent) -> None:
    """Wait for the end of the order, or for a while after its deadline."""
    events = engine.events()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout((intent.deadline_ns - engine.now_ns() + GRACE_NS) / SECOND):
            async for record in events:
                if isinstance(record.event, IntentEnded) and record.event.intent_id == intent.intent_id:
                    return
