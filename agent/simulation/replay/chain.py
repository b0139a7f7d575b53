"""The chain of a replay: blocks in virtual time, one wallet of ours, and pools that somebody keeps near the exchange's price.

In each block the arbitrageur comes first, as on public chains, and our transactions come after it: so the pools may have moved
since an order was quoted, and one that would give less than its least is reverted and costs its gas. What our swaps leave behind is
put right in the next block. Nothing is ever reorganised here; that is the business of the drill.
"""

import asyncio
import hashlib
from collections.abc import Callable
from fractions import Fraction

import msgspec

from agent.domain.amount import Amount, decode_hook, zero
from agent.domain.errors import LiquidityError, OutcomeUnknown, VenueError
from agent.domain.order import Fill
from agent.domain.plan import ApproveToken, SwapBatch
from agent.liquidity.quote import Quote
from agent.ports import Clock
from agent.routing.cost import BATCH_GAS
from agent.simulation.drill.blocks import Body, Receipt, Tx, hash_of
from agent.simulation.drill.clock import dice
from agent.simulation.drill.market import COIN, USDT, WETH
from agent.simulation.replay.pools import ARBITRAGE_GAS, State, arbitraged, new_states, quote
from agent.simulation.replay.setting import POOLS, SECOND, ChainSetting

UNLIMITED = (1 << 160) - 1  # what Permit2 may move from the beginning: a permission is not what a replay is about
REVERTED_GAS = 100_000
PLAIN_GAS = 46_000
REPLACE_PERCENT = 110  # what a node asks of a transaction that takes the place of another
WANDER_PER_MILLE = 30  # of the base fee, a block
FEE_RANGE = 4  # how far it strays: from a fourth of where it began to four times that
FIRST_BLOCK = 100
TIP = 10**9

Mid = Callable[[], Fraction | None]


class Block(msgspec.Struct, frozen=True):
    number: int
    hash: str
    parent: str
    timestamp_s: int
    next_base_fee: int
    receipts: tuple[Receipt, ...]
    moved: tuple[str, ...]  # pools that stand elsewhere than before


class Chain:
    """Owns blocks, pools and the wallet. `on_block` is called with every new block."""

    def __init__(self, setting: ChainSetting, seed: int, clock: Clock, mid: Mid) -> None:
        self._setting, self._clock, self._mid, self._dice = setting, clock, mid, dice(seed, POOLS)
        self.base_fee = setting.base_fee
        self.pools: dict[str, State] = new_states(mid() or Fraction(1))
        self.held = {WETH: 0, USDT: 0, COIN: 0}
        self.allowed = {WETH: UNLIMITED, USDT: UNLIMITED}
        self.permits = {WETH: 0, USDT: 0}
        self.nonce = 0
        self.waiting: dict[int, Tx] = {}  # by nonce
        self.mined: dict[str, tuple[Block, Receipt]] = {}
        self.on_block: Callable[[Block], None] = _nobody
        self.head = Block(FIRST_BLOCK, _hash(FIRST_BLOCK), _hash(FIRST_BLOCK - 1), clock.now_ns() // SECOND, self.base_fee, (), ())

    async def run(self) -> None:
        """A block each `block_ns`, until cancelled."""
        due_ns = self._clock.now_ns()
        while True:
            due_ns += self._setting.block_ns
            await asyncio.sleep((due_ns - self._clock.now_ns()) / SECOND)
            self.mine(due_ns)

    def mine(self, now_ns: int) -> None:
        """One block: the arbitrageur, then what waits of ours, in the order of its numbers."""
        before, mid = dict(self.pools), self._mid()
        for name, state in before.items() if mid else ():
            assert mid is not None, "asked above"
            cost = Fraction(ARBITRAGE_GAS * (self.base_fee + TIP), 10**COIN.decimals) * mid
            self.pools[name] = arbitraged(state, mid, cost) or state
        receipts: list[Receipt] = []
        while (tx := self.waiting.get(self.nonce)) is not None and tx.body.fee_max >= self.base_fee:
            receipts.append(self._run(self.waiting.pop(self.nonce), now_ns))
            self.nonce += 1
        number = self.head.number + 1
        self.base_fee = self._next_base_fee()
        moved = tuple(name for name, state in self.pools.items() if state is not before[name])
        self.head = Block(number, _hash(number), self.head.hash, now_ns // SECOND, self.base_fee, tuple(receipts), moved)
        self.mined |= {receipt.tx.hash: (self.head, receipt) for receipt in receipts}
        self.on_block(self.head)

    def arrive(self, raw: bytes, now_ns: int) -> str:
        """Signed bytes reach a node; their hash. Raises VenueError for a refusal, OutcomeUnknown where the node may have them."""
        tx = Tx(hash_of(raw), msgspec.json.decode(raw, type=Body, dec_hook=decode_hook), now_ns)
        rival = self.waiting.get(tx.body.nonce)
        if tx.hash in self.mined or (rival is not None and rival.hash == tx.hash) or tx.body.nonce < self.nonce:
            raise OutcomeUnknown(f"{POOLS} may have this transaction already: ask for it by its hash")
        if rival is not None and tx.body.fee_max * 100 < rival.body.fee_max * REPLACE_PERCENT:
            raise VenueError(f"{POOLS} refused the transaction: replacement transaction underpriced")
        self.waiting[tx.body.nonce] = tx
        return tx.hash

    # -- carrying out --------------------------------------------------------------------------------------------------

    def _run(self, tx: Tx, now_ns: int) -> Receipt:
        body, plan = tx.body, tx.body.plan
        trouble, fills, used = "", tuple[Fill, ...](), PLAIN_GAS
        match plan:
            case SwapBatch():
                try:
                    fills, used = self._swap(plan, tx.hash, now_ns)
                except _RevertedError as error:
                    trouble, used = str(error), REVERTED_GAS
            case ApproveToken():
                self.allowed[plan.sell.asset] = int(plan.sell.units)
            case _:
                pass
        used = min(used, body.gas_limit)
        cost = used * min(body.fee_max, self.base_fee + body.tip)
        self.held[COIN] -= cost
        return Receipt(tx, cost, used, trouble, fills)

    def _swap(self, plan: SwapBatch, tx_hash: str, now_ns: int) -> tuple[tuple[Fill, ...], int]:
        """All legs or none, as the router does it: (trades, gas)."""
        sold, bought = plan.sell.asset, plan.buy.asset
        if now_ns // SECOND > plan.deadline_s:
            raise _RevertedError("TransactionDeadlinePassed")
        if plan.permit_nonce != self.permits[sold]:
            raise _RevertedError("InvalidNonce")
        if min(self.allowed[sold], self.held[sold]) < plan.sell.units:
            raise _RevertedError("TransferFailed")
        pools, fills, gas = dict(self.pools), list[Fill](), BATCH_GAS
        for place, leg in enumerate(plan.legs):
            amount = leg.sell.units if leg.exact == "sell" else leg.buy.units
            try:
                got: Quote = quote(pools[leg.instrument], amount, is_sale=sold == WETH, exact=leg.exact)
            except LiquidityError:
                raise _RevertedError("TooLittleReceived") from None
            if got.amount_in > leg.sell.units or got.amount_out < leg.buy.units:
                raise _RevertedError("TooLittleReceived" if leg.exact == "sell" else "TooMuchRequested")
            pools[leg.instrument] = got.after  # type: ignore[assignment]  # a pool stays what it is
            gas += got.gas
            paid, received = Amount(got.amount_in, sold), Amount(got.amount_out, bought)
            trade_id = f"{tx_hash}:{place}"
            fills.append(Fill(plan.order_id, POOLS, leg.instrument, trade_id, paid, received, zero(bought), now_ns, tx_hash))
        self.pools = pools
        self.permits[sold] += 1
        for fill in fills:
            self.held[sold] -= fill.paid.units
            self.held[bought] += fill.received.units
        return tuple(fills), gas

    def _next_base_fee(self) -> int:
        wandered = self.base_fee * (1_000 + self._dice.between(-WANDER_PER_MILLE, WANDER_PER_MILLE)) // 1_000
        return max(self._setting.base_fee // FEE_RANGE, min(wandered, self._setting.base_fee * FEE_RANGE))


class _RevertedError(Exception):
    """A transaction that a block takes in and that changes nothing but the gas it costs."""


def _hash(number: int) -> str:
    return "0x" + hashlib.sha256(f"block {number}".encode()).hexdigest()


def _nobody(_block: Block) -> None:
    """Nobody watches."""
