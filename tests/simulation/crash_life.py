"""One life of the real engine over a real journal on disk, at venues whose truth outlives it; and what is true after its last life.

Two exchanges and a chain of the drill write down what they know after every change. The engine, its SQLite journal and a client
that trades run in this process until all is settled, or until the process kills itself at a numbered point: before a write of the
journal, in the middle of it, after it, at a sync, as a request leaves, as it was carried out. A later life goes on over the
same files.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from crash_points import Points, Watched

from agent.domain.amount import Amount, rescale_up
from agent.domain.errors import JournalError
from agent.domain.events import IntentAccepted, IntentCancelled, OrderApproved, OrderSent, Record
from agent.domain.intent import Intent
from agent.domain.order import Fill
from agent.engine.loop import Engine
from agent.engine.state import State
from agent.engine.world import Rules
from agent.journal import flush, sqlite, store
from agent.journal.sqlite import Durability, SqliteJournal
from agent.market.view import Market
from agent.ports import Venue
from agent.risk.limits import Limits
from agent.settlement.knobs import Knobs
from agent.simulation.drill.blocks import Receipt, balances
from agent.simulation.drill.chain import Chain
from agent.simulation.drill.chain_line import ChainLine
from agent.simulation.drill.clock import SECOND, START_NS, WarpClock, warped, world_ns
from agent.simulation.drill.exchange import Exchange
from agent.simulation.drill.exchange_line import ExchangeLine
from agent.simulation.drill.faults import Weather
from agent.simulation.drill.market import AMM, CEX, EXCHANGES, MAIN, base_of, quote_of, wish
from agent.simulation.drill.play import PlayLatch, PlaySigner, PromptPlaySigner

STEP_S, LIFE_S_MAX = 0.25, 240
SEED, AWAY_TICKS = 7, 100


class Finding(NamedTuple):
    """What a look at everything found. `lost`, `twice`, `odd`: one line each."""

    lost: list[str]
    twice: list[str]
    odd: list[str]


# -- the venues, written down ------------------------------------------------------------------------------------------


class Outside:
    """What does not die with the process: two exchanges, a chain, and what left for them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.exchanges = [self._exchange(name) for name in EXCHANGES]
        path = home / "chain.json"
        self.chain = Chain.load(path.read_bytes()) if path.exists() else Chain.open(SEED)
        self.chain.ledger.block_ns = SECOND // 2
        self.chain.listeners.append(lambda: replace(path, self.chain.dump()))

    def _exchange(self, name: str) -> Exchange:
        path = self.home / f"{name}.json"
        exchange = Exchange.load(path.read_bytes()) if path.exists() else Exchange.open(name, SEED)
        exchange.ledger.appetite, exchange.ledger.haste = (3, 100) if name == CEX else (0, 0)
        exchange.listeners.append(lambda: replace(path, exchange.dump()))
        return exchange

    @property
    def now_ns(self) -> int:
        return max(self.chain.ledger.now_ns, *(one.ledger.now_ns for one in self.exchanges))

    def note(self, name: str) -> None:
        """A request leaves."""
        note(self.home / "left", name)

    def lines(self, clock: WarpClock, points: Points) -> dict[str, Venue]:
        weather = Weather.calm()
        lines = [ExchangeLine(one, clock, weather) for one in self.exchanges]
        found: list[ExchangeLine | ChainLine] = [*lines, ChainLine(self.chain, clock, weather)]
        for line in found:
            line.leaving = lambda signed: self._leaving(points, getattr(signed, "tx_hash", signed.order_id))
            line.carried_out = lambda: points.at("carried out")
        return {line.profile.name: line for line in found}

    def _leaving(self, points: Points, name: str) -> None:
        points.at("before it leaves")
        self.note(name)

    @property
    def receipts(self) -> list[Receipt]:
        return [receipt for block in self.chain.ledger.blocks for receipt in block.receipts]

    def fills(self) -> Iterator[Fill]:
        for exchange in self.exchanges:
            yield from (trade.fill for trade in exchange.ledger.trades.values())
        for receipt in self.receipts:
            yield from receipt.fills

    def balances(self) -> Iterator[tuple[str, Amount]]:
        for one in self.exchanges:
            venue = one.ledger.venue
            yield venue, Amount(one.ledger.base, base_of(venue))
            yield venue, Amount(one.ledger.quote, quote_of(venue))
        yield from ((AMM, amount) for amount in balances(self.chain.ledger.wallet))

    def shake(self) -> None:
        """The price leaves an order that rests; and once, when a swap of ours is in a block, that block is taken back."""
        chain = self.chain
        for exchange in self.exchanges:
            for order in exchange.resting():
                exchange.ledger.bid = min(exchange.ledger.bid, order.ticks - AWAY_TICKS)
        if not chain.ledger.reorgs and any(receipt.fills for block in chain.ledger.blocks[-2:] for receipt in block.receipts):
            chain.reorg(2, returns=True, is_remined=True)


def replace(path: Path, data: bytes) -> None:
    draft = path.with_suffix(".new")
    draft.write_bytes(data)
    draft.replace(path)


def note(path: Path, line: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, line.encode() + b"\n")
    os.close(handle)


def noted(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


# -- the client --------------------------------------------------------------------------------------------------------


def wishes() -> list[tuple[float, Intent]]:
    """Parents and when they are sent, in seconds of the world."""
    end_ns = START_NS + 60 * SECOND
    return [
        (2.0, wish("sale", "24", "sell", end_ns, slices=2, interval_ns=3 * SECOND)),
        (2.5, wish("buy", "6", "buy", end_ns)),
        (3.0, wish("rest", "30", "sell", end_ns, rests=True, slippage_bps=20)),
    ]


CANCEL = (9.0, "rest")


async def trade(engine: Engine, outside: Outside) -> None:
    """The client: asks until it is answered, and writes down what it was told. What it does not know it asks again."""
    todo = {intent.intent_id: (at_s, intent) for at_s, intent in wishes()}
    answered = set(noted(outside.home / "acked")) | set(noted(outside.home / "refused"))
    todo = {name: one for name, one in todo.items() if name not in answered}
    is_cancelled = "cancelled:" + CANCEL[1] in answered
    for _ in range(int(LIFE_S_MAX / STEP_S)):
        await asyncio.sleep(STEP_S)
        now_s = (world_ns() - START_NS) / SECOND
        if engine.is_stopping:
            raise JournalError(engine.failure)
        outside.shake()
        for name in [name for name, (at_s, _) in todo.items() if now_s >= at_s]:
            known = name in engine.state.parents
            reasons = await engine.submit(todo[name][1])
            if reasons and now_s < 30 and not known:
                continue  # no price yet
            note(outside.home / ("refused" if reasons and not known else "acked"), name)
            del todo[name]
        if now_s >= CANCEL[0] and not is_cancelled and CANCEL[1] not in todo:
            is_cancelled = True
            if await engine.cancel(CANCEL[1]):
                note(outside.home / "acked", "cancelled:" + CANCEL[1])
        if not todo and is_cancelled and is_settled(engine):
            return
    raise TimeoutError(f"not settled: {engine.waiting_for()} {list(engine.state.live)} {list(engine.state.working)}")


def is_settled(engine: Engine) -> bool:
    state, world = engine.state, engine.world
    return not (state.live or state.working or state.mined) and world.ready.issuperset(world.profiles)


# -- a life ------------------------------------------------------------------------------------------------------------


def rules() -> Rules:
    limits = Limits({"USDT": 10**24}, {"ETH": 10**20}, gas_limit_max=3_000_000)
    return Rules(limits, 5, deadline_s=20, outbid_after_s=15, knobs=Knobs(reconciliation_startup_delay_secs=5))


def live(home: Path, durability: Durability, points: Points) -> Finding:
    """From the start of the process until all is settled. It does not return where it is killed."""
    flush.PAUSE_S = 3_600.0
    store.LOG_BYTES, sqlite.MOVE_PAGES = 256 << 10, 24  # small, so that the log is moved and begins anew in so short a run
    outside = Outside(home)
    return warped(_live(home, durability, points, outside), max(outside.now_ns + SECOND, START_NS))


async def _live(home: Path, durability: Durability, points: Points, outside: Outside) -> Finding:
    inner = SqliteJournal(home / "journal.sqlite", durability)
    finding = looked_back(home, list(inner.read()), outside)
    journal, clock = Watched(inner, home, points), WarpClock()
    venues = outside.lines(clock, points)
    is_chain_prompt = durability == "power"  # so that both ways of signing die at every point
    signers = {name: PromptPlaySigner() if (name == AMM) == is_chain_prompt else PlaySigner() for name in venues}
    engine = Engine(journal, venues, signers, clock, rules(), Market(), MAIN, run_id="sweep", latch=PlayLatch())
    running = asyncio.create_task(engine.run())
    try:
        await trade(engine, outside)
        breaks = await engine.reconcile()
    finally:
        await engine.stop("settled")
        await running
        records = list(journal.read())
        journal.close()
    finding.lost.extend(f"{one.venue} {one.asset}: {one.cause}" for one in breaks)
    finding.odd.extend(f"halted {scope}: {why}" for scope, why in engine.state.halted.items())
    compared(engine.state, records, outside, finding)
    return finding


# -- what is true ------------------------------------------------------------------------------------------------------


def looked_back(home: Path, records: Sequence[Record], outside: Outside) -> Finding:
    """What a new start finds in its journal, before it asks anybody: all that the world was told."""
    finding, events = Finding([], [], []), [record.event for record in records]
    path = home / "promise"
    if path.exists() and (promise := path.read_text()):
        seq, found = int(promise.split()[0]), promise.split()[1]
        if len(records) < seq or records[seq - 1].hash != found:
            finding.lost.append(f"record {seq} was written, the journal ends at {len(records)}")
    accepted = {event.intent.intent_id for event in events if isinstance(event, IntentAccepted)}
    accepted |= {f"cancelled:{event.intent_id}" for event in events if isinstance(event, IntentCancelled)}
    sent = {name for event in events if isinstance(event, OrderSent) for name in (event.order_id, event.tx_hash)}
    finding.lost.extend(f"{name} was acknowledged, and is not known" for name in set(noted(home / "acked")) - accepted)
    finding.lost.extend(f"{name} left, and is not known" for name in set(noted(home / "left")) - sent)
    arrived = {name for one in outside.exchanges for name in one.ledger.arrivals} | set(outside.chain.ledger.arrivals)
    finding.lost.extend(f"{name} arrived, and is not known" for name in arrived - sent)
    return finding


def compared(state: State, records: Sequence[Record], outside: Outside, finding: Finding) -> None:
    """All is settled: the journal held against what the venues and the chain know."""
    theirs = {fill.key: fill for fill in outside.fills()}
    finding.lost.extend(f"{key} is not booked" for key in theirs.keys() - state.fills.keys())
    finding.twice.extend(f"{key} is booked, and no trade" for key in state.fills.keys() - theirs.keys())
    for venue, amount in outside.balances():
        ours = state.ledger.balance(MAIN, venue, amount.asset)
        if ours != amount:
            finding.lost.append(f"{venue} has {amount}, the journal {ours}")
    again = State()
    for record in records:
        again.apply(record)
    if again.ledger.balances() != state.ledger.balances() or again.fills != state.fills:
        finding.odd.append("the journal, read again, gives another state")
    finding.twice.extend(doubled(records, outside))
    finding.twice.extend(overfilled(state, theirs.values()))
    finding.odd.extend(f"{one.order_id} is {one.state}" for one in state.orders.values() if not one.is_settled)


def doubled(records: Sequence[Record], outside: Outside) -> list[str]:
    """Orders that were approved, sent, or carried out more than once."""
    events = [record.event for record in records]
    hashes = set(outside.chain.ledger.arrivals)  # the same bytes may be sent again: they can only happen once
    counts = {
        "was approved twice": [event.approved.plan.order_id for event in events if isinstance(event, OrderApproved)],
        "is recorded as sent twice": [event.tx_hash or event.order_id for event in events if isinstance(event, OrderSent)],
        "left twice": [name for name in noted(outside.home / "left") if name not in hashes],
        "reached an exchange twice": [name for one in outside.exchanges for name in one.ledger.arrivals],
        "was mined twice": [one.tx.body.order_id for one in outside.receipts if not one.trouble],
        "has the same number as another": [str(one.tx.body.nonce) for one in outside.receipts],
    }
    found = [f"{name} {text}" for text, names in counts.items() for name, count in Counter(names).items() if count > 1]
    return found + outside.chain.ledger.blunders


def overfilled(state: State, fills: Iterable[Fill]) -> list[str]:
    """Parents for which the venues traded more than was asked for."""
    traded: Counter[str] = Counter()
    for fill in fills:
        parent = state.parents[state.orders[fill.order_id].plan.intent_id].intent if fill.order_id in state.orders else None
        if parent is not None:
            base = fill.paid if parent.side == "sell" else fill.received
            traded[parent.intent_id] += rescale_up(base, parent.quantity.asset).units
    return [f"{name} traded too much" for name, units in traded.items() if units > state.parents[name].intent.quantity.units]
