"""A desk for `tick_to_wire`: the real engine with its journal and keys, over venues whose far end is a socket of this process.

What an adapter does with a frame and with a plan is what the product's adapters do: the exchange's frames are read by its reader,
orders are written for its WebSocket API and signed by its key, batches are built and signed as for the contracts. Nothing comes
back from the socket: each order is said to be filled when its bytes are out, and then the next tick may come.
"""

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from agent.domain.amount import Amount, Asset, parse_units, plain
from agent.domain.events import GasPaid, OrderFilled, OrderReported, VenueConnected
from agent.domain.instrument import Instrument
from agent.domain.intent import Intent
from agent.domain.market import BookSnapshot, ChainHead, Listed, PoolRanges, PoolReserves
from agent.domain.order import Fill, OrderRef, OrderState
from agent.domain.plan import Approved, PlaceOrder, Signed, SignedRequest, SignedTransaction, SwapBatch, Unsigned, VenueRequest
from agent.engine.loop import Engine
from agent.engine.world import Rules
from agent.journal.sqlite import SqliteJournal
from agent.keys.local import LocalSigner
from agent.keys.policy import swap_policy
from agent.keys.secrets import Secret
from agent.keys.venue_key import VenueKey
from agent.liquidity.concentrated import Concentrated
from agent.liquidity.constant_product import ConstantProduct
from agent.liquidity.depth import Depth
from agent.market.quality import QualityLimits
from agent.market.view import Market, Source
from agent.ports import Allowance, PrivateFact, Profile, Signer, Snapshot, VenueEvent
from agent.risk.limits import Limits
from agent.routing.search import Search
from agent.venues.ccxt_exchange import binance_wire as wire
from agent.venues.uniswap.build import build
from agent.venues.uniswap.config import Config
from benchmarks.markets import TETHER, WETH, Shape, build_instance

SECOND = 10**9
START_NS = 1_800_000_000 * SECOND
CHAIN, POOLS, MAIN = 1, "uniswap", "main"
KEY = bytes.fromhex("11" * 32)
COIN = Asset("ETH", f"eip155:{CHAIN}", 18, "ETH")
TOKENS = {"WETH": "0x" + "0a" * 20, "USDT": "0x" + "0b" * 20}
ROUTER, PERMIT2 = "0x" + "0c" * 20, "0x" + "0d" * 20
IDLE_ROUNDS = 8  # of the loop, after which an engine without news waits
SLICES = 500  # of one parent; then the next one begins
Mode = Literal["exchange", "chain"]


class Clock:
    """Time stands still, but for one second with every tick that arrives, so that the next slice is due then and not before."""

    def __init__(self) -> None:
        self.time_ns = START_NS

    def now_ns(self) -> int:
        return self.time_ns

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Wire:
    """The far end, and the moment when the first order of a tick has left."""

    def __init__(self) -> None:
        self._near, self._far = socket.socketpair()
        self._far.setblocking(False)
        self.left_ns, self.gone = 0, asyncio.Event()

    def send(self, frame: bytes) -> None:
        self._near.send(frame)
        self.left_ns = self.left_ns or time.perf_counter_ns()
        self.gone.set()

    def empty(self) -> None:
        self.left_ns = 0
        self.gone.clear()
        try:
            while self._far.recv(1 << 16):
                pass
        except BlockingIOError:
            return

    def close(self) -> None:
        self._near.close()
        self._far.close()


class Exchange:
    """Satisfies the port Venue with one book."""

    def __init__(self, source: Source, clock: Clock, wire_out: Wire) -> None:
        self._found, self._clock, self._wire = source.instrument, clock, wire_out
        assert isinstance(source.state, Depth), "an exchange has books"
        self.depth = source.state
        self.key = VenueKey("key", self._found.venue, "k" * 64, Secret("s" * 64))
        self.profile = Profile(self._found.venue, "ccxt_exchange", False, None)
        self.frames: asyncio.Queue[bytes] = asyncio.Queue()
        self._context = wire.Context(self._found.venue, {"ETHUSDT": self._found}, {"ETH": "ETH", "USDT": "USDT"})

    async def stream(self) -> AsyncIterator[VenueEvent]:
        now_ns = self._clock.now_ns()
        yield VenueConnected(self._found.venue)
        yield Listed(self._found.venue, (self._found,), now_ns)
        yield BookSnapshot(self._found.id, 1, self.depth.bids, self.depth.asks, now_ns)
        while True:
            received = await self.frames.get()
            self._clock.time_ns += SECOND + 1
            frame = wire.decode(received)
            for fact in wire.facts_of(frame, msgspec.structs.replace(self._context, at_ns=self._clock.now_ns())):
                yield fact

    def build(self, approved: Approved) -> Unsigned:
        plan, found = approved.plan, self._found
        assert isinstance(plan, PlaceOrder), "an exchange takes orders"
        fields = (
            ("symbol", "ETHUSDT"),
            ("side", plan.side.upper()),
            ("type", "LIMIT"),
            ("timeInForce", plan.time_in_force),
            ("quantity", plain(plan.lots * found.lot_units, found.base.decimals)),
            ("price", plain(plan.ticks * found.tick_units, found.quote.decimals)),
            ("newClientOrderId", plan.order_id),
        )
        return VenueRequest(plan.order_id, found.venue, "place", fields)

    async def send(self, signed: Signed) -> Sequence[PrivateFact]:
        assert isinstance(signed, SignedRequest), "signed by the exchange's key"
        params = dict(signed.request.fields) | {"apiKey": self.key.api_key, "recvWindow": "5000"}
        params["timestamp"] = str(self._clock.now_ns() // 1_000_000)
        payload = "&".join([f"{name}={value}" for name, value in sorted(params.items())])
        params["signature"] = self.key.hmac_sha256_hex(payload.encode())
        self._wire.send(msgspec.json.encode({"id": signed.order_id, "method": "order.place", "params": params}))
        return self._filled(signed.order_id, params["quantity"], params["price"])

    def _filled(self, name: str, quantity: str, price: str) -> Sequence[PrivateFact]:
        found = self._found
        base = Amount(parse_units(quantity, 8), found.base)
        quote = Amount(base.units * parse_units(price, 8) // 10**8, found.quote)
        fill = Fill(name, found.venue, found.id, name, base, quote, Amount(0, found.quote), self._clock.now_ns())
        done = OrderReported(name, OrderState.FILLED, "", name, filled=base)
        return (OrderReported(name, OrderState.OPEN, "", name), OrderFilled(fill), done)

    async def snapshot(self, asked: Sequence[OrderRef] = ()) -> Snapshot:  # noqa: ARG002 - the port's
        balances = (Amount(10**16, self._found.base), Amount(10**18, self._found.quote))
        return Snapshot(self._found.venue, MAIN, balances, (), (), None, self._clock.now_ns())

    async def close(self) -> None:
        self.key.close()

    def frame(self, chance: random.Random, best: tuple[int, int], number: int) -> bytes:
        """Twenty levels change, near the best ones."""

        def rows(first: int, sign: int) -> list[list[str]]:
            ticks = (first + sign * chance.randrange(0, 60) for _ in range(10))
            return [[f"{one / 100:.2f}000000", f"{chance.randrange(1, 90_000) / 10_000:.4f}0000"] for one in ticks]

        data = {"e": "depthUpdate", "s": "ETHUSDT", "U": number, "u": number, "b": rows(best[0], -1), "a": rows(best[1], 1)}
        return msgspec.json.encode({"stream": "ethusdt@depth@100ms", "data": data})


class Pools:
    """Satisfies the port Venue with pools on one chain; a batch is in a block as soon as it is out."""

    def __init__(self, sources: Sequence[Source], clock: Clock, wire_out: Wire, wallet: str) -> None:
        self._clock, self._wire = clock, wire_out
        tokens = [{"symbol": name, "address": where, "decimals": 18 if name == "WETH" else 6} for name, where in TOKENS.items()]
        settings = {
            "rpc_url": "http://127.0.0.1:1",
            "chain_id": CHAIN,
            "wallet": wallet,
            "tokens": tokens,
            "contracts": {"universal_router": ROUTER, "permit2": PERMIT2},
            "pools": [{"protocol": "v2", "base": "WETH", "quote": "USDT", "address": "0x" + "0e" * 20}],
            "gas_limit_max": 10_000_000,
        }
        self._config = Config.model_validate(settings)
        self._sources = {source.instrument.id: source for source in sources}
        self.profile = Profile(POOLS, "uniswap", True, CHAIN, (PERMIT2, *TOKENS.values()), wallet, PERMIT2)
        self.facts: asyncio.Queue[VenueEvent] = asyncio.Queue()
        self._permits, self._plans = 0, dict[str, SwapBatch]()

    async def stream(self) -> AsyncIterator[VenueEvent]:
        now_ns = self._clock.now_ns()
        yield VenueConnected(POOLS)
        yield Listed(POOLS, tuple(source.instrument for source in self._sources.values()), now_ns)
        yield ChainHead(CHAIN, 5, "0x05", "0x04", 10**9, now_ns // SECOND, now_ns)
        for name in self._sources:
            yield self.reserves(name)
        for one in self._allowances():
            yield one
        while True:
            fact = await self.facts.get()
            if not isinstance(fact, Allowance):
                self._clock.time_ns += SECOND + 1
            yield fact

    def reserves(self, name: str) -> VenueEvent:
        """A pool as it stands, told again."""
        state, now_ns = self._sources[name].state, self._clock.now_ns()
        if isinstance(state, ConstantProduct):
            return PoolReserves(name, state.reserve_0, state.reserve_1, 5, now_ns)
        assert isinstance(state, Concentrated), "v2 or v3"
        known = state.known_lower, state.known_upper
        return PoolRanges(name, state.sqrt_price_x96, state.tick, state.liquidity, state.ticks, *known, 5, now_ns)

    def build(self, approved: Approved) -> Unsigned:
        assert isinstance(approved.plan, SwapBatch), "everything is permitted already"
        self._plans[approved.plan.order_id] = approved.plan
        return build(approved, self._config, {name: source.instrument for name, source in self._sources.items()})

    async def send(self, signed: Signed) -> Sequence[PrivateFact]:
        assert isinstance(signed, SignedTransaction), "signed by the wallet's key"
        self._wire.send(b'{"method":"eth_sendRawTransaction","params":["0x%b"]}' % signed.raw.hex().encode())
        plan, name, now_ns = self._plans.pop(signed.order_id), signed.order_id, self._clock.now_ns()
        self._permits += 1
        tx_hash, none = signed.tx_hash, Amount(0, plan.sell.asset)
        fills = [
            OrderFilled(Fill(name, POOLS, leg.instrument, f"{tx_hash}:{i}", leg.sell, leg.buy, none, now_ns, tx_hash))
            for i, leg in enumerate(plan.legs)
        ]
        gas = GasPaid(name, MAIN, Amount(10**12, COIN), 1, signed.tx_hash)
        mined = OrderReported(name, OrderState.MINED, "", signed.tx_hash, 5, None, signed.tx_hash, "0x05")
        final = OrderReported(name, OrderState.FINAL, "", signed.tx_hash, 5, None, signed.tx_hash, "0x05")
        for one in self._allowances():
            self.facts.put_nowait(one)
        return (*fills, gas, mined, final)

    def _allowances(self) -> Iterator[Allowance]:
        for token in (WETH, TETHER):
            asset = _asset(token)
            yield Allowance(POOLS, asset.id, 10**40, self._permits, self._clock.now_ns())

    async def snapshot(self, asked: Sequence[OrderRef] = ()) -> Snapshot:  # noqa: ARG002 - the port's
        balances = (Amount(10**26, _asset(WETH)), Amount(10**18, _asset(TETHER)), Amount(10**21, COIN))
        return Snapshot(POOLS, MAIN, balances, (), (), 0, self._clock.now_ns())

    async def close(self) -> None:
        return


class Desk:
    """Owns the engine and what is around it. `turn` lets ticks come, one at a time, each when the one before has settled."""

    def __init__(self, folder: Path, mode: Mode, durability: Literal["process", "power"], new_search: Callable[[], Search]) -> None:
        shape = Shape(typical_eth=3, spread=0) if mode == "exchange" else Shape(books=0, typical_eth=30, spread=0)
        instance = build_instance(shape, 3)
        self.clock, self.wire, self._chance = Clock(), Wire(), random.Random(1)
        self._quantity = instance.quantity
        signer = LocalSigner(bytearray(KEY), clock=None)
        signer.allow(swap_policy(CHAIN, signer.address, ROUTER, PERMIT2, frozenset(TOKENS.values()), 10**12, 10**7))
        pools = [_moved(source) for source in instance.view.sources if not source.instrument.is_book]
        self._exchanges = [Exchange(source, self.clock, self.wire) for source in instance.view.sources if source.instrument.is_book]
        self._pools = Pools(pools, self.clock, self.wire, signer.address)
        venues = {one.profile.name: one for one in (*self._exchanges, self._pools)}
        signers: dict[str, Signer] = {one.profile.name: one.key for one in self._exchanges} | {POOLS: signer}
        never = QualityLimits(book_age_ns_max=0, head_age_ns_max=0, pool_blocks_max=0)
        self._market = Market(never)
        limits = Limits({"USDT": 10**30}, {"ETH": 10**30}, gas_limit_max=10**7)
        self._journal = SqliteJournal(folder / f"{mode}-{durability}.sqlite", durability)
        self.engine = Engine(
            self._journal, venues, signers, self.clock, Rules(limits), self._market, MAIN, new_search=new_search
        )  # fmt: skip
        self._numbers = dict.fromkeys(venues, 1)
        self._parents = self._ticks = 0
        self._running: asyncio.Task[None] | None = None

    async def open(self) -> None:
        self._running = asyncio.create_task(self.engine.run())
        await self.engine.ready()
        view = self._market.view("ETH/USDT", self.clock.now_ns())
        assert not view.untrusted, f"every source takes part: {view.untrusted}"

    async def close(self) -> None:
        await self.engine.stop()
        assert self._running is not None, "it was opened"
        await self._running
        self._journal.close()
        self.wire.close()

    async def turn(self, count: int) -> list[int]:
        """Nanoseconds from a frame in our hands to the first byte of an order on the socket, for `count` ticks."""
        return [await self._tick() for _ in range(count)]

    async def _tick(self) -> int:
        await self._settled()
        self.wire.empty()
        put = self._news()
        start = time.perf_counter_ns()
        put()
        await self.wire.gone.wait()
        return self.wire.left_ns - start

    def _news(self) -> Callable[[], None]:
        self._ticks += 1
        if not self._exchanges:
            name = list(self._pools._sources)[self._ticks % len(self._pools._sources)]
            fact = self._pools.reserves(name)
            return lambda: self._pools.facts.put_nowait(fact)
        exchange = self._exchanges[self._ticks % len(self._exchanges)]
        found = exchange.depth
        number = self._numbers[exchange.profile.name] = self._numbers[exchange.profile.name] + 1
        frame = exchange.frame(self._chance, (found.bids[0][0], found.asks[0][0]), number)
        return lambda: exchange.frames.put_nowait(frame)

    async def _begun(self, name: str) -> None:
        """The first slice needs no tick."""
        for _ in range(100_000):
            if self.engine.state.parents[name].orders:
                return
            await asyncio.sleep(0)

    async def _settled(self) -> None:
        """Nothing is on its way, a parent has something left to trade, and its first slice is behind it."""
        state = self.engine.state
        while state.working or not any(state.remaining(parent) for parent in state.live.values()):
            if not state.live:
                self._parents += 1
                whole = Amount(self._quantity.units * SLICES, self._quantity.asset)
                now_ns = self.clock.now_ns()
                reasons = await self.engine.submit(
                    Intent(f"p{self._parents}", MAIN, "bench", "sell", whole, "USDT", 500, now_ns + 10**15, SLICES, SECOND)
                )
                assert not reasons, reasons
                await self._begun(f"p{self._parents}")
            await asyncio.sleep(0)  # an engine tells nobody that it has nothing to do
        for _ in range(IDLE_ROUNDS):
            await asyncio.sleep(0)


def _asset(token: Asset) -> Asset:
    return msgspec.structs.replace(token, address=TOKENS[token.symbol])


def _moved(source: Source) -> Source:
    """The pool at the one venue of this desk, over its tokens."""
    found = source.instrument
    assert found.pool is not None, "pools alone"
    spacing = source.state.tick_spacing if isinstance(source.state, Concentrated) else 0
    pool = msgspec.structs.replace(found.pool, token0=TOKENS["WETH"], token1=TOKENS["USDT"], tick_spacing=spacing)
    name = f"{found.venue}-{found.symbol}"
    changes: Mapping[str, object] = {"venue": POOLS, "symbol": name, "base": _asset(found.base), "quote": _asset(found.quote)}
    instrument: Instrument = msgspec.structs.replace(found, pool=pool, **changes)
    return msgspec.structs.replace(source, instrument=instrument)
