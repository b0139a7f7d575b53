"""The whole engine over one real chain, with a key of its own and a journal in memory; every wei is checked from receipts alone."""

import asyncio
import contextlib
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from eth_account import Account
from eth_utils.crypto import keccak
from onchain_desk import GWEI, RealClock, settings

from agent.domain.amount import Amount, Asset, group_asset, parse_amount
from agent.domain.events import AttemptApproved, BalanceAdopted, Event, GasPaid, OrderFilled
from agent.domain.intent import Intent
from agent.domain.order import Order, OrderRef, OrderState
from agent.domain.plan import Approved, ApproveToken, Reason, SignedTransaction, SwapBatch
from agent.engine.loop import Engine
from agent.engine.world import Rules
from agent.journal.codec import Row
from agent.journal.memory import MemoryJournal
from agent.keys.accounts.signer import acting
from agent.keys.bounds import KeyPolicy
from agent.keys.local import LocalSigner
from agent.keys.policy import swap_policy
from agent.keys.rehearsal import Rehearsal
from agent.market.view import Market
from agent.policies import account_of
from agent.ports import Latch, Rehearsing, Tools
from agent.risk.limits import Limits
from agent.roles import steps_to
from agent.settlement.knobs import Knobs
from agent.simulation.chain.rpc import Rpc
from agent.simulation.chain.wallets import Made, as_owner
from agent.simulation.chain.world import SandboxChain
from agent.venues.uniswap import Config, connect, fetch_role

NAME, MAIN, WAIT_S = "uniswap", "main", 12.0
WETH_ALLOWANCES = 4  # WETH9's place of the mapping of allowances
QUIET_BLOCKS = 80  # between funding and trading: no reorganisation of a drill reaches the funding


def rules(**changes: Any) -> Rules:
    limits = Limits(
        {"USDT": 10**24},
        {"ETH": 10**20},
        gas_fee_cap=changes.pop("gas_fee_cap", 200 * GWEI),
        gas_limit_max=changes.pop("gas_limit_max", 3_000_000),
    )
    return Rules(limits, **{"deadline_s": 500, "knobs": Knobs(inflight_check_threshold_ms=500), **changes})


class Pilot:
    """An engine that runs, the chain that it trades on, and its journal."""

    def __init__(self, chain: SandboxChain, engine: Engine, config: Config, rows: list[Row], key: bytes) -> None:
        self.chain, self.engine, self.config, self.rows, self._key = chain, engine, config, rows, key
        self._count = 0

    async def sell(self, quantity: str = "1", within_s: float = 120) -> str:
        name, reasons = await self.ask(quantity, within_s)
        assert reasons == ()
        return name

    async def ask(self, quantity: str = "1", within_s: float = 120) -> tuple[str, tuple[Reason, ...]]:
        """The parent's name, and why it is refused."""
        self._count += 1
        name = f"p{self._count}"
        deadline_ns = self.engine.now_ns() + int(within_s * 10**9)
        amount = parse_amount(quantity, group_asset("ETH"))
        return name, await self.engine.submit(Intent(name, MAIN, "drill", "sell", amount, "USDT", 300, deadline_ns))

    async def held_back(self) -> Order:
        """A swap that a node holds and that no block takes: from here on blocks come only when a test asks for one."""
        await self.chain.call("evm_setAutomine", False)
        await self.sell()
        await self.until(lambda: any(order.state is OrderState.OPEN for order in self._swaps()), "no swap waits")
        return self._swaps()[-1]

    async def attempted(self, met: Callable[[], object], why: str) -> None:
        """As `until`, and what was signed has left."""
        await self.until(lambda: met() and not self.engine.world.attempting, why)

    async def set_base_fee(self, wei: int) -> None:
        """A block that costs so much, which therefore takes none of ours that pay less."""
        await self.chain.call("anvil_setNextBlockBaseFeePerGas", hex(wei))
        await self.chain.call("evm_mine")
        number = int(await self.chain.call("eth_blockNumber"), 16)
        await self.until(lambda: self.engine.world.market.heads()[self.config.chain_id].number >= number)

    async def another_program(self, nonce: int) -> str:
        """Signs with the same key and sends one wei away; the hash. It pays more than we would."""
        account = Account.from_key(self._key)
        fields = {
            "type": 2, "chainId": self.config.chain_id, "nonce": nonce, "gas": 21_000, "to": "0x" + "11" * 20, "value": 1,
            "maxFeePerGas": 150 * GWEI, "maxPriorityFeePerGas": 50 * GWEI, "data": "0x",
        }  # fmt: skip
        raw = account.sign_transaction(fields).raw_transaction
        return str(await self.chain.call("eth_sendRawTransaction", "0x" + bytes(raw).hex()))

    async def take_permission_back(self) -> None:
        """Behind the agent's back and without a transaction: Permit2 may move nothing any more."""
        owner, spender = (int(one, 16).to_bytes(32, "big") for one in (self.config.wallet, self.config.contracts.permit2))
        place = keccak(spender + keccak(owner + WETH_ALLOWANCES.to_bytes(32, "big")))
        await self.chain.call("anvil_setStorageAt", self.config.contracts.weth, "0x" + place.hex(), "0x" + "00" * 32)

    def held(self, symbol: str) -> int:
        """What the ledger holds."""
        asset = self.config.native if symbol == "ETH" else self.config.assets[symbol]
        return self.engine.state.ledger.balance(MAIN, NAME, asset).units

    def waiting(self, *states: OrderState) -> list[Order]:
        return [order for order in self.engine.state.working.values() if order.state in states]

    def attempts(self) -> list[AttemptApproved]:
        return [event for event in self.journal() if isinstance(event, AttemptApproved)]

    async def until(self, met: Callable[[], object], why: str = "", each: Callable[[], Awaitable[object]] | None = None) -> None:
        """Looks again after every record, and now and then without one; does `each` in between."""
        records = self.engine.events()
        waiting = asyncio.ensure_future(anext(records))
        try:
            async with asyncio.timeout(WAIT_S):
                while not met():
                    assert not self.engine.is_stopping, self.engine.failure
                    done, _ = await asyncio.wait({waiting}, timeout=0.1)
                    if done:
                        waiting = asyncio.ensure_future(anext(records))
                    if each is not None:
                        await each()
        except TimeoutError:
            raise AssertionError(
                f"{why or 'it never came'}; {[(o.plan, o.state) for o in self.engine.state.orders.values()]}"
            ) from None
        finally:
            waiting.cancel()

    async def swap(self) -> Order:
        """The newest swap, once it is signed."""
        await self.until(lambda: any(order.attempts for order in self._swaps()), "no swap was sent")
        return self._swaps()[-1]

    async def traded(self, name: str) -> Order:
        """The swap of a parent that has ended well."""
        await self.until(lambda: not self.engine.state.parents[name].is_live, f"{name} never ended")
        assert self.engine.state.parents[name].status == "FILLED", self.engine.state.parents[name]
        return self._swaps()[-1]

    def journal(self) -> list[Event]:
        return [record.event for record in MemoryJournal(list(self.rows)).read()]

    async def agrees(self) -> None:
        """The engine finds no break, and `is_explained`."""
        assert await self.engine.reconcile() == []
        await self.is_explained()

    async def is_explained(self) -> None:
        """Journal == a fresh fold over the receipts that the chain has now == the wallet, to the wei."""
        folded, held = await self._from_the_chain()
        for asset, units in held.items():
            booked = self.engine.state.ledger.balance(MAIN, NAME, asset).units
            assert (asset.symbol, booked, folded[asset]) == (asset.symbol, units, units)

    def _swaps(self) -> list[Order]:
        return [order for order in self.engine.state.orders.values() if isinstance(order.plan, SwapBatch)]

    async def _from_the_chain(self) -> tuple[Counter[Asset], dict[Asset, int]]:
        """(what the openings and the receipts of all our transactions add up to, what the wallet holds)."""
        asked = [
            OrderRef(
                one.order_id,
                NAME,
                "",
                nonce=one.nonce,
                sent_ns=one.sent_ns,
                tx_hashes=tuple(attempt.tx_hash for attempt in one.attempts),
                cancel_hashes=tuple(attempt.tx_hash for attempt in one.attempts if attempt.is_cancel),
            )
            for one in self.engine.state.orders.values()
            if one.attempts
        ]
        venue = await connect(NAME, self.config.model_copy(update={"rpc_url": self.chain.rpc_url}), Tools(RealClock()))
        shot = await venue.snapshot(asked)
        await venue.close()
        folded: Counter[Asset] = Counter()
        for event in self.journal():
            if isinstance(event, BalanceAdopted):
                folded[event.amount.asset] += event.amount.units
        for fact in shot.facts:
            if isinstance(fact, OrderFilled):
                folded[fact.fill.paid.asset] -= fact.fill.paid.units
                folded[fact.fill.received.asset] += fact.fill.received.units
            if isinstance(fact, GasPaid):
                folded[fact.amount.asset] -= fact.amount.units
        return folded, {one.asset: one.units for one in shot.balances}


async def set_up(config: Config, policy: KeyPolicy) -> None:
    """The owner of the sandbox's Safe gives the wallet its role."""
    rpc = Rpc(config.rpc_url)
    is_enabled, granted = await fetch_role(config, Tools(RealClock()))
    steps = steps_to(config, policy, granted, is_enabled=is_enabled)
    if steps:
        await asyncio.to_thread(as_owner, rpc, config.safe, config.contracts.multi_send, [one.call for one in steps])
    rpc.close()
    is_enabled, granted = await fetch_role(config, Tools(RealClock()))
    assert steps_to(config, policy, granted, is_enabled=is_enabled) == []


@contextlib.asynccontextmanager
async def flying(
    chain: SandboxChain,
    *,
    key: bytes | None = None,
    rows: list[Row] | None = None,
    with_rules: Rules | None = None,
    is_permitted: bool = True,
    latch: Latch | None = None,
    made: Made | None = None,
    **changes: Any,
) -> AsyncIterator[Pilot]:
    """An engine with the Uniswap venue alone. `key` and `rows` of an earlier one: it is restarted.

    `is_permitted`: Permit2 may move the wallet's coins already, so that a parent is one swap. `made`: the account that the key
    acts for, and the tokens are there.
    """
    raw = key or secrets.token_bytes(32)
    signer = LocalSigner(bytearray(raw))
    if rows is None:
        await chain.fund(signer.address, {"ETH": "10"})
        await chain.fund(made.holder if made else signer.address, {"WETH": "100", "USDT": "500000"})
        await chain.call("anvil_mine", hex(QUIET_BLOCKS))
    section = settings(chain.deployment, **{"rpc_url": chain.rpc_url, "wallet": signer.address, **changes})
    if made:
        section |= made.settings
        section["contracts"] |= made.contracts
    config = Config.model_validate(section)
    tokens = frozenset(token.address for token in config.tokens)
    contracts = config.contracts
    router, permit2, anchor = contracts.universal_router, contracts.permit2, contracts.audit_anchor
    account = account_of(config)
    terms = (tokens, 500 * GWEI, config.gas_limit_max, anchor)
    names = {token.address.lower(): (token.symbol, token.decimals) for token in config.tokens}
    policy = swap_policy(config.chain_id, signer.address, router, permit2, *terms, names=names, account=account)
    if config.account == "role":
        await set_up(config, policy)
    venue = await connect(NAME, config, Tools(RealClock()))
    assert isinstance(venue, Rehearsing)
    signer.allow(policy, Rehearsal(policy, venue.rehearse) if config.simulate else None)
    agent = acting(signer, account, anchor) if account else signer
    if rows is None and is_permitted and account is None:
        amount = Amount(100 * 10**18, config.assets["WETH"])
        plan = ApproveToken("before", "i", MAIN, NAME, config.chain_id, amount, permit2, 80_000, 100 * GWEI, GWEI)
        signed = await signer.sign(venue.build(Approved(plan, 0)))
        assert isinstance(signed, SignedTransaction)
        await chain.call("eth_sendRawTransaction", "0x" + signed.raw.hex())
        await chain.call("anvil_mine", hex(QUIET_BLOCKS))
    rows = [] if rows is None else rows
    chosen = with_rules or rules()
    engine = Engine(MemoryJournal(rows), {NAME: venue}, {NAME: agent}, RealClock(), chosen, Market(), MAIN, latch=latch)
    running = asyncio.create_task(engine.run())
    try:
        async with asyncio.timeout(WAIT_S):
            await engine.ready()
        await engine.priced("ETH/USDT")
        yield Pilot(chain, engine, config, rows, raw)
    finally:
        await engine.stop("the drill is over")
        await asyncio.gather(running, return_exceptions=True)
        await venue.close()
        signer.close()
