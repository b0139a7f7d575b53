"""Uniswap v2, v3 and v4 on one chain as one venue: every pool of the config, traded by one wallet in one transaction per batch.

Pools are read whole at one block and then follow their own logs, block by block; a reorganisation or a gap means reading again.
Orders are transactions: they are sent once, found in blocks by their hash, and booked from their receipts.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence

from agent.chains import abi
from agent.chains.logs import Log, log_filter, parse_logs, pool_log, pool_of
from agent.chains.multicall import Read, read_all
from agent.chains.pools import PoolState, Ranges, Reserves, carry, key_of, read_pools
from agent.chains.proof import Proofs
from agent.chains.rehearse import rehearse
from agent.chains.rpc import Node, whole
from agent.chains.watch import REMEMBERED_MAX, Step, Watch, fetch_head
from agent.chains.witness import Witnesses
from agent.chains.witness import connect as connect_rpc
from agent.domain.amount import Amount
from agent.domain.errors import ChainError
from agent.domain.events import OrderReported, VenueConnected, VenueStatus
from agent.domain.instrument import Instrument, Pool
from agent.domain.market import ChainHead, Listed, MarketFact, PoolRanges, PoolReserves, PoolsCurrent
from agent.domain.order import OrderRef, OrderState
from agent.domain.plan import Approved, Signed, Unsigned
from agent.ports import Allowance, Asked, PrivateFact, Profile, Rehearsed, Snapshot, Tools, Venue, VenueEvent
from agent.venues.uniswap.broadcast import Broadcast
from agent.venues.uniswap.build import PERMIT_AMOUNT_MAX, build
from agent.venues.uniswap.config import Config, discover
from agent.venues.uniswap.holder import check_holder
from agent.venues.uniswap.orders import Transactions
from agent.venues.uniswap.pins import Pins, code_hashes

REREADS_MAX = 5  # whole reads in a row that a reorganisation may spoil


async def connect(name: str, config: Config, tools: Tools) -> Venue:
    """Reach the chain, prove that it is the right one, and look the pools up. Raises ChainError, one line that says what to do."""
    rpc = await connect_rpc(
        config.rpc_url, config.rpc_url_second, config.chain_id, config.timeout_s, tools.clock, config.lag_blocks_max
    )
    try:
        await check_holder(rpc, config)
        instruments = await discover(rpc, name, config)
    except ChainError:
        await rpc.close()
        raise
    return Uniswap(name, config, rpc, tools, instruments)


async def pins_of(config: Config, tools: Tools) -> dict[str, str]:
    """Hashes of the code of every contract that the settings name, as it is now. Raises ChainError."""
    rpc = await connect_rpc(
        config.rpc_url, config.rpc_url_second, config.chain_id, config.timeout_s, tools.clock, config.lag_blocks_max
    )
    try:
        return await code_hashes(rpc, config.touched, whole(await rpc.call("eth_blockNumber")))
    finally:
        await rpc.close()


class Uniswap:
    """Satisfies the port Venue. One stream at a time."""

    def __init__(self, name: str, config: Config, rpc: Node, tools: Tools, instruments: Sequence[Instrument]) -> None:
        self._name, self._config, self._rpc, self._clock = name, config, rpc, tools.clock
        self._account = tools.account
        self._instruments = {one.id: one for one in instruments}
        self._by_key: dict[str, tuple[Instrument, Pool]] = {
            key_of(one.pool): (one, one.pool) for one in instruments if one.pool is not None
        }
        self._witness = rpc if isinstance(rpc, Witnesses) else None
        self._orders = Transactions(name, tools.account, config, rpc, self._clock, instruments)
        self._broadcast = Broadcast(name, config, rpc, self._orders, self._clock)
        self._proofs = Proofs(rpc, config.wallet, config.holder)
        self._pins = Pins(rpc, config.code_hashes)
        self._told = VenueStatus(name, "TRADING")
        self._states: dict[str, PoolState] = {}
        self._profile = _profile(name, config)
        self._is_first = True
        self._seen: ChainHead | None = None

    @property
    def profile(self) -> Profile:
        return self._profile

    def build(self, approved: Approved) -> Unsigned:
        """Raises VenueError for a plan that this venue cannot carry out."""
        return build(approved, self._config, self._instruments)

    async def stream(self) -> AsyncIterator[VenueEvent]:
        """What is listed, `VenueConnected`, then for every block its head, the pools that changed, and news of our transactions."""
        if not self._is_first:
            await self._rpc.open()
        self._is_first = False
        watch = Watch(self._rpc, self._clock, self._config.poll_every_s, max(REMEMBERED_MAX, 2 * self._config.confirmations))
        head = await watch.start()
        head, facts = await self._read_whole(watch, head)
        self._seen = head
        yield Listed(self._name, tuple(self._instruments.values()), self._clock.now_ns())
        yield VenueConnected(self._name)
        self._told = VenueStatus(self._name, "TRADING")
        await self._pins.look(head.number)
        for fact in (*self._news_of_status(), head, *facts):
            yield fact
        async with self._orders.turn:
            opening = await self._orders.news(Step(head, head.number, is_continuous=False, kept=-1))
            allowances = await self._allowances(head)
        for one in (*opening, *allowances):
            yield one
        while True:
            step = await watch.look()
            if step is None:
                for one in await self._told_meanwhile(watch, head):
                    yield one
                continue
            head = self._seen = step.head
            await self._pins.look(head.number)
            yield head
            async with self._orders.turn:
                facts, news = await asyncio.gather(self._follow(step), self._orders.news(step))
                allowances = await self._allowances(step.head) if self._orders.take_moved() else []
            # nothing is awaited from here on: whoever hears that an order ended hears at once which permit comes next
            current = PoolsCurrent(self._name, step.head.number, step.head.at_ns)
            for event in (*facts, current, *news, *allowances):
                yield event
            last: list[VenueEvent] = [*await self._orders.simulations(step.head), *self._news_of_status()]
            for item in last:
                yield item

    async def send(self, signed: Signed) -> Sequence[PrivateFact]:
        """Hand signed bytes on, once. Raises ChainError if certainly not accepted, OutcomeUnknown if nobody knows."""
        return await self._broadcast.send(signed)

    async def rehearse(self, asked: Asked) -> Rehearsed:
        """Run a transaction after ours that wait before it, on the newest block that was seen. Raises ChainError."""
        head = self._seen or await fetch_head(self._rpc, self._clock)
        return await rehearse(self._rpc, head, asked, await self._orders.before(asked.nonce, head))

    async def snapshot(self, asked: Sequence[OrderRef] = ()) -> Snapshot:
        """Balances and nonce at one block, proved where the node can, then what the chain knows of `asked`. Raises ChainError."""
        config, contracts = self._config, self._config.contracts
        at_ns = self._clock.now_ns()
        head = await fetch_head(self._rpc, self._clock)
        if self._witness is not None and (doubt := await self._witness.doubt(head)):
            raise ChainError(doubt)
        reads = [Read(contracts.multicall3, abi.eth_balance(config.wallet), "Multicall3")]
        reads += [Read(token.address, abi.balance_of(config.holder), f"the token {token.symbol}") for token in config.tokens]
        answers, count = await asyncio.gather(
            read_all(self._rpc, contracts.multicall3, reads, head.number),
            self._rpc.call("eth_getTransactionCount", config.wallet, hex(head.number)),
        )
        assets = [config.native, *config.assets.values()]
        balances = tuple(
            Amount(abi.decoded(["uint256"], answer, asset.symbol)[0], asset) for asset, answer in zip(assets, answers, strict=True)
        )
        told = {one.asset: one.units for one in balances[1:]}
        proved = await self._proofs.prove(head.number, head.hash, config.native, told)
        facts = await self._orders.answer(asked, head)  # last: nothing may come between what is found out and who hears it
        facts += self._news_of_status()
        resting = tuple(fact.order_id for fact in facts if isinstance(fact, OrderReported) and fact.state is OrderState.OPEN)
        return Snapshot(self._name, self._account, balances, resting, tuple(facts), whole(count), at_ns, proved=proved)

    async def close(self) -> None:
        await self._broadcast.close()
        await self._rpc.close()

    def _news_of_status(self) -> list[VenueStatus]:
        """Nothing new is sent while one of two providers is gone, since nobody would contradict a wrong one, or while somebody
        else seems to use the wallet, or while a contract is not the code that was pinned.
        """
        trouble = (self._witness.trouble if self._witness is not None else "") or self._orders.foreign or self._pins.trouble
        status = VenueStatus(self._name, "CANCEL_ONLY" if trouble else "TRADING", trouble)
        if status == self._told:
            return []
        self._told = status
        return [status]

    async def _told_meanwhile(self, watch: Watch, head: ChainHead) -> list[Allowance | VenueStatus]:
        """What changes without a new block: a provider is gone or back, or an answer told of a block that changed permissions."""
        allowances: list[Allowance] = []
        if watch.is_quiet:
            async with self._orders.turn:
                allowances = await self._allowances(head) if self._orders.take_moved() else []
        return [*allowances, *self._news_of_status()]

    # -- pools -------------------------------------------------------------------------------------------------------------

    async def _read_whole(self, watch: Watch, head: ChainHead) -> tuple[ChainHead, list[MarketFact]]:
        """Every pool as of one block that is still the chain's when all is read."""
        for _ in range(REREADS_MAX):
            self._states.clear()
            await self._read(list(self._by_key), head)
            again = await fetch_head(self._rpc, self._clock, hex(head.number))
            if again.hash == head.hash:
                return head, [self._fact(key, head) for key in self._by_key]
            head = await watch.start()
        raise ChainError(f"{self._rpc.place} keeps rewriting its newest block: use another RPC")

    async def _read(self, keys: Sequence[str], head: ChainHead) -> None:
        near = {key: state.tick for key in keys if isinstance(state := self._states.get(key), Ranges)}
        contracts, pools = self._config.contracts, [self._by_key[key][1] for key in keys]
        words = self._config.tick_words
        self._states |= await read_pools(self._rpc, contracts.multicall3, contracts.v4_state_view, pools, words, head.number, near)

    async def _follow(self, step: Step) -> list[MarketFact]:
        """The pools that the new blocks changed, carried forward by their logs or read again."""
        if not step.is_continuous:
            await self._read(list(self._by_key), step.head)
            return [self._fact(key, step.head) for key in self._by_key]
        question = log_filter(self._addresses(), step.first, step.head.number)
        changed, stale = self._carry(parse_logs(await self._rpc.call("eth_getLogs", question)), step.head)
        if stale:
            await self._read(sorted(stale), step.head)
        return [self._fact(key, step.head) for key in sorted(changed | stale)]

    def _carry(self, found: Sequence[Log], head: ChainHead) -> tuple[set[str], set[str]]:
        """(pools that moved, pools that must be read again), by key."""
        changed: set[str] = set()
        stale: set[str] = set()
        for log in found:
            if log.block == head.number and log.block_hash != head.hash.lower():
                return set(), set(self._by_key)  # the block was replaced while we asked
            key = pool_of(log)
            said = pool_log(log) if key in self._by_key else None
            if said is None or key in stale:
                continue
            state = carry(self._states[key], said, self._by_key[key][1].tick_spacing)
            if state is None:
                stale.add(key)
            elif state != self._states[key]:
                self._states[key] = state
                changed.add(key)
        return changed - stale, stale

    def _addresses(self) -> list[str]:
        """Contracts whose logs move our pools; all v4 pools speak through the manager."""
        found = {pool.address or self._config.contracts.v4_pool_manager for _, pool in self._by_key.values()}
        return sorted(found)

    def _fact(self, key: str, head: ChainHead) -> MarketFact:
        state, instrument = self._states[key], self._by_key[key][0]
        if isinstance(state, Reserves):
            return PoolReserves(instrument.id, state.reserve0, state.reserve1, head.number, head.at_ns)
        return PoolRanges(
            instrument.id,
            state.sqrt_price_x96,
            state.tick,
            state.liquidity,
            state.ticks,
            state.known_lower,
            state.known_upper,
            head.number,
            head.at_ns,
        )

    async def _allowances(self, head: ChainHead) -> list[Allowance]:
        """What Permit2 may move of each token, and the router's next permit nonce, as of the end of a block.

        An account on the chain tells Permit2 in each batch: nothing has to be allowed before, and nothing stays allowed after.
        """
        config, contracts = self._config, self._config.contracts
        if config.tells_permit2:
            at_ns = self._clock.now_ns()
            return [Allowance(self._name, asset.id, PERMIT_AMOUNT_MAX, 0, at_ns) for asset in config.assets.values()]
        reads = []
        for token in config.tokens:
            reads.append(Read(token.address, abi.allowance(config.wallet, contracts.permit2), f"the token {token.symbol}"))
            permit = abi.permit2_allowance(config.wallet, token.address, contracts.universal_router)
            reads.append(Read(contracts.permit2, permit, "Permit2"))
        answers = iter(await read_all(self._rpc, contracts.multicall3, reads, head.number))
        found = []
        for asset in config.assets.values():
            (units,) = abi.decoded(["uint256"], next(answers), asset.symbol)
            _, _, nonce = abi.decoded(["uint160", "uint48", "uint48"], next(answers), "Permit2")
            found.append(Allowance(self._name, asset.id, units, nonce, self._clock.now_ns()))
        return found


def _profile(name: str, config: Config) -> Profile:
    contracts = (config.contracts.universal_router, config.contracts.permit2, *(token.address for token in config.tokens))
    anchor = config.contracts.audit_anchor
    contracts = (*contracts, anchor) if anchor else contracts
    return Profile(name, "uniswap", True, config.chain_id, contracts, config.wallet, config.contracts.permit2, anchor=anchor)
