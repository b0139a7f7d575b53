"""A chain as it really is: blocks that name their parent, a pool of transactions that wait, one wallet, one pool to trade in.

Everything it holds is plain data (`blocks`), driven by the world's time alone. A transaction is its bytes: whoever has them
can send them again. Each block keeps what the wallet and the pool held before it, so that a reorganisation can take it back whole.
"""

import msgspec

from agent.domain.amount import Amount, decode_hook, encode_hook, zero
from agent.domain.errors import LiquidityError
from agent.domain.order import Fill
from agent.domain.plan import AnchorHead, ApproveToken, CancelTransaction, Plan, SwapBatch, SwapLeg
from agent.liquidity.constant_product import ConstantProduct
from agent.simulation.drill.blocks import GWEI, Block, Body, ChainLedger, NodeError, Receipt, Tx, Wallet, hash_of
from agent.simulation.drill.clock import SECOND, START_NS, Listener, dice
from agent.simulation.drill.market import AMM, POOL, PRICE_TICKS, WETH

REPLACE_PER_MILLE = 1_125  # what the strictest node asks of a replacement, on both fees
GAS_USED = {"swap": 200_000, "approve": 46_000, "cancel": 21_000, "anchor": 50_000, "foreign": 21_000}


class Chain:
    """Owns the ledger. `listeners` are called after every change."""

    def __init__(self, ledger: ChainLedger) -> None:
        self.ledger = ledger
        self.listeners: list[Listener] = []
        if not ledger.blocks:
            ledger.blocks.append(Block(100, _hash("block 100"), _hash("block 99"), GWEI, START_NS // SECOND, (), ledger.wallet))

    @classmethod
    def open(cls, seed: int) -> "Chain":
        return cls(ChainLedger(dice(seed, AMM)))

    @classmethod
    def load(cls, saved: bytes) -> "Chain":
        return cls(msgspec.json.decode(saved, type=ChainLedger, dec_hook=decode_hook))

    def dump(self) -> bytes:
        return msgspec.json.encode(self.ledger, enc_hook=encode_hook)

    @property
    def head(self) -> Block:
        return self.ledger.blocks[-1]

    # -- time --------------------------------------------------------------------------------------------------------

    def advance(self, now_ns: int) -> None:
        """Mine what is due by `now_ns`."""
        chain = self.ledger
        while chain.next_ns <= now_ns:
            chain.now_ns = chain.next_ns
            chain.next_ns += chain.block_ns
            if not chain.is_stalled:
                self._mine()
        chain.now_ns = max(chain.now_ns, now_ns)

    def _mine(self) -> None:
        chain = self.ledger
        drift = chain.dice.between(-30, 30)
        wallet = chain.wallet  # whoever sees two prices trades until they are one
        fair = wallet.pool_weth * PRICE_TICKS // 10**14
        chain.wallet = msgspec.structs.replace(wallet, pool_usdt=wallet.pool_usdt + (fair - wallet.pool_usdt) // 4)
        chain.base_fee = max(chain.fee_floor, min(chain.base_fee * (1_000 + drift) // 1_000, 10 * chain.fee_floor))
        self._append()
        self._changed()

    def _append(self, *, is_empty: bool = False) -> None:
        chain, before = self.ledger, self.ledger.wallet
        number = self.head.number + 1
        receipts: list[Receipt] = []
        while not (is_empty or chain.is_deaf) and (tx := self._next()) is not None:
            receipts.append(self._run(tx, number))
        name = f"block {number} of fork {chain.forks}"
        timestamp_s = max(chain.now_ns // SECOND, self.head.timestamp_s + 1)
        chain.blocks.append(Block(number, _hash(name), self.head.hash, chain.base_fee, timestamp_s, tuple(receipts), before))

    def _next(self) -> Tx | None:
        """The transaction that the block takes next: of the wallet's next number, the one that pays most, or an older one of it."""
        chain, nonce = self.ledger, self.ledger.wallet.nonce
        if chain.dice.between(0, 99) < chain.older_percent:
            waiting = any(one.body.nonce == nonce for one in chain.mempool.values())
            older = [one for one in chain.held.values() if one.body.nonce == nonce and self._pays(one)]
            if waiting and len(older) > 1:
                chain.older_mined += 1
                return min(older, key=lambda one: one.body.fee_max)
        found = [one for one in chain.mempool.values() if one.body.nonce == nonce and self._pays(one)]
        return max(found, key=lambda one: one.body.fee_max, default=None)

    def _pays(self, tx: Tx) -> bool:
        return tx.body.fee_max >= self.ledger.base_fee

    def _run(self, tx: Tx, number: int) -> Receipt:
        chain, body = self.ledger, tx.body
        used = min(GAS_USED[_kind(body.plan)], body.gas_limit)
        cost = used * min(body.fee_max, chain.base_fee + body.tip)
        trouble, after, fills = self.tried(tx, reverts=chain.dice.between(0, 99) < chain.revert_percent)
        chain.wallet = msgspec.structs.replace(after, coin=after.coin - cost, nonce=body.nonce + 1)
        chain.effects[body.nonce] = tx.hash
        for other in [one for one in chain.mempool.values() if one.body.nonce <= body.nonce]:
            del chain.mempool[other.hash]
        if trouble in ("InvalidNonce", "AllowanceTooLow") and not chain.reorgs:  # after those, what was built on may be gone
            chain.blunders.append(f"{body.order_id} in block {number}: {trouble}")
        if not trouble and tx.hash in chain.failed:
            chain.revived.append(tx.hash)
        return Receipt(tx, cost, used, trouble, fills)

    def tried(self, tx: Tx, *, reverts: bool = False) -> tuple[str, Wallet, tuple[Fill, ...]]:
        """What a transaction would do now: (why it reverts, the wallet after it, its trades). Gas is not counted."""
        wallet, plan = self.ledger.wallet, tx.body.plan
        match plan:
            case ApproveToken():
                name = "allowed_weth" if plan.sell.asset == WETH else "allowed_usdt"
                return "", msgspec.structs.replace(wallet, **{name: int(plan.sell.units)}), ()
            case SwapBatch() if reverts:
                self.ledger.reverted += 1
                return "TooLittleReceived", wallet, ()
            case SwapBatch():
                return self._swap(plan, tx, wallet)
            case _:
                return "", wallet, ()

    def _swap(self, plan: SwapBatch, tx: Tx, wallet: Wallet) -> tuple[str, Wallet, tuple[Fill, ...]]:
        is_sale = plan.sell.asset == WETH
        allowed, permit = (wallet.allowed_weth, wallet.permit_weth) if is_sale else (wallet.allowed_usdt, wallet.permit_usdt)
        if self.ledger.now_ns // SECOND > plan.deadline_s:
            return "TransactionDeadlinePassed", wallet, ()
        if plan.permit_nonce != permit:
            return "InvalidNonce", wallet, ()
        if allowed < plan.sell.units:
            return "AllowanceTooLow", wallet, ()
        after, fills = wallet, list[Fill]()
        for position, leg in enumerate(plan.legs):
            try:
                paid, got, after = _leg(leg, after, is_sale=is_sale)
            except LiquidityError:
                return "TooLittleReceived", wallet, ()
            if paid > leg.sell.units or got < leg.buy.units:
                return "TooLittleReceived" if leg.exact == "sell" else "TooMuchRequested", wallet, ()
            sold, bought = Amount(paid, plan.sell.asset), Amount(got, plan.buy.asset)
            fills.append(
                Fill(
                    plan.order_id,
                    AMM,
                    POOL.id,
                    f"{tx.hash}:{position}",
                    sold,
                    bought,
                    zero(plan.buy.asset),
                    self.ledger.now_ns,
                    tx.hash,
                )
            )
        spent = sum(fill.paid.units for fill in fills)
        if after.weth < 0 or after.usdt < 0:
            return "TransferFailed", wallet, ()
        names = ("allowed_weth", "permit_weth") if is_sale else ("allowed_usdt", "permit_usdt")
        return "", msgspec.structs.replace(after, **{names[0]: allowed - spent, names[1]: permit + 1}), tuple(fills)

    # -- sends -------------------------------------------------------------------------------------------------------

    def arrive(self, raw: bytes, now_ns: int) -> str:
        """Signed bytes are here; their hash. Raises NodeError as geth does."""
        self.advance(now_ns)
        chain, tx = self.ledger, Tx(hash_of(raw), msgspec.json.decode(raw, type=Body, dec_hook=decode_hook), now_ns)
        chain.arrivals.append(tx.hash)
        body = tx.body
        if any(one.body.order_id == body.order_id and one.body.nonce != body.nonce for one in chain.held.values()):
            chain.blunders.append(f"{body.order_id} has two numbers, {body.nonce} is one of them")
        if tx.hash in chain.mempool:
            raise NodeError("already known")
        if body.nonce < chain.wallet.nonce:
            self._too_low(tx)
            raise NodeError("nonce too low")
        if body.fee_max < chain.base_fee // 2:
            raise NodeError("transaction underpriced")
        rival = next((one for one in chain.mempool.values() if one.body.nonce == body.nonce), None)
        if rival is not None:
            self._outbid(rival, tx)
        elif set(range(chain.wallet.nonce, body.nonce)) - {one.body.nonce for one in chain.held.values()}:
            chain.blunders.append(f"{body.order_id} has number {body.nonce}, the chain waits for {chain.wallet.nonce}")
        chain.mempool[tx.hash] = chain.held[tx.hash] = tx
        self._changed()
        return tx.hash

    def _too_low(self, tx: Tx) -> None:
        """A number that is used: by the same order, which is well, by somebody else, or by an order of the wallet's own."""
        used = self.ledger.held.get(self.ledger.effects.get(tx.body.nonce, ""))
        if used is not None and used.body.order_id not in ("", tx.body.order_id):
            self.ledger.blunders.append(f"{tx.body.order_id} takes number {tx.body.nonce}, which {used.body.order_id} has used")

    def _outbid(self, rival: Tx, tx: Tx) -> None:
        needed = [fee * REPLACE_PER_MILLE for fee in (rival.body.fee_max, rival.body.tip)]
        offered = [fee * 1_000 for fee in (tx.body.fee_max, tx.body.tip)]
        is_short = any(bid < ask for bid, ask in zip(offered, needed, strict=True))
        is_older = tx.body.order_id == rival.body.order_id and tx.body.fee_max < rival.body.fee_max
        if is_short and (not rival.body.order_id or is_older or tx.hash in self.ledger.held):
            raise NodeError("replacement transaction underpriced")  # of a stranger nobody knows; and the same bytes may come late
        if is_short:
            self.ledger.blunders.append(f"{tx.body.order_id} outbids {rival.body.order_id} by too little")
            raise NodeError("replacement transaction underpriced")
        if rival.body.order_id != tx.body.order_id:
            self.ledger.blunders.append(f"{tx.body.order_id} takes the number of {rival.body.order_id}")
        del self.ledger.mempool[rival.hash]

    def find(self, tx_hash: str, height: int) -> tuple[Block, Receipt] | None:
        """Where a transaction is in the chain, as a node sees it that knows blocks up to `height`."""
        for block in reversed(self.ledger.blocks):
            if block.number <= height:
                for receipt in block.receipts:
                    if receipt.tx.hash == tx_hash:
                        return block, receipt
        return None

    def block(self, number: int) -> Block | None:
        index = number - self.ledger.blocks[0].number
        return self.ledger.blocks[index] if 0 <= index < len(self.ledger.blocks) else None

    def wallet_at(self, height: int) -> Wallet:
        """What the wallet held after the block of that height."""
        if height < self.ledger.blocks[0].number:
            return self.ledger.blocks[0].before
        later = self.block(height + 1)
        return self.ledger.wallet if later is None else later.before

    # -- of its own accord -------------------------------------------------------------------------------------------

    def reorg(self, depth: int, *, returns: bool, is_remined: bool) -> int:
        """Take `depth` blocks back and grow one more than that; how many were taken.

        `returns`: their transactions wait again. `is_remined`: the new blocks may take them at once.
        """
        chain, gone = self.ledger, list[Block]()
        while len(gone) < depth and len(chain.blocks) > 1:
            gone.append(chain.blocks.pop())
        if not gone:
            return 0
        chain.wallet = gone[-1].before
        chain.forks += 1
        chain.reorgs.append(len(gone))
        for receipt in [one for block in reversed(gone) for one in block.receipts]:
            chain.effects.pop(receipt.tx.body.nonce, None)
            if receipt.trouble:
                chain.failed.append(receipt.tx.hash)
            if isinstance(receipt.tx.body.plan, CancelTransaction):  # what it had taken back may be taken instead
                chain.failed += [tx.hash for tx in chain.held.values() if tx.body.nonce == receipt.tx.body.nonce]
            if returns:
                chain.mempool[receipt.tx.hash] = receipt.tx
        for index in range(len(gone) + 1):
            self._append(is_empty=not is_remined or (index == 0 and chain.dice.chance(0.5)))
        self._changed()
        return len(gone)

    def drop(self) -> int:
        """The nodes forget everything that waits; how many transactions."""
        count = len(self.ledger.mempool)
        self.ledger.mempool.clear()
        self._changed()
        return count

    def spend_elsewhere(self) -> None:
        """Somebody else uses the wallet's key: its next number is gone, and a little gas."""
        chain = self.ledger
        body = Body("", chain.wallet.nonce, 21_000, 100 * chain.base_fee, GWEI)
        raw = msgspec.json.encode(body, enc_hook=encode_hook)
        chain.foreign.append(body.nonce)
        for rival in [one for one in chain.mempool.values() if one.body.nonce == body.nonce]:
            del chain.mempool[rival.hash]
        tx = Tx(hash_of(raw), body, chain.now_ns)
        chain.mempool[tx.hash] = chain.held[tx.hash] = tx
        self._changed()

    def deposit(self, units: int) -> None:
        """Dollars arrive in the wallet from outside."""
        chain = self.ledger
        chain.wallet = msgspec.structs.replace(chain.wallet, usdt=chain.wallet.usdt + units)
        chain.blocks = [  # no reorganisation takes it back
            msgspec.structs.replace(one, before=msgspec.structs.replace(one.before, usdt=one.before.usdt + units))
            for one in chain.blocks
        ]
        self._changed()

    def move_pool(self, per_mille: int) -> None:
        """Somebody trades in the pool: its price moves by about so much."""
        wallet = self.ledger.wallet
        usdt = wallet.pool_usdt * (1_000 + per_mille) // 1_000
        self.ledger.wallet = msgspec.structs.replace(wallet, pool_usdt=usdt)
        self._changed()

    def _changed(self) -> None:
        for listener in self.listeners:
            listener()


def _hash(text: str) -> str:
    return hash_of(text.encode())


def _kind(plan: Plan | None) -> str:
    match plan:
        case SwapBatch():
            return "swap"
        case ApproveToken():
            return "approve"
        case AnchorHead():
            return "anchor"
        case CancelTransaction():
            return "cancel"
        case _:
            return "foreign"


def _leg(leg: SwapLeg, wallet: Wallet, *, is_sale: bool) -> tuple[int, int, Wallet]:
    """(paid, received, the wallet and pool after it). Raises LiquidityError."""
    pool = ConstantProduct(wallet.pool_weth, wallet.pool_usdt, POOL.fee_pips)
    quote = pool.swap_in(leg.sell.units, is_sale) if leg.exact == "sell" else pool.swap_out(leg.buy.units, is_sale)
    paid, got = quote.amount_in, quote.amount_out
    weth, usdt = (-paid, got) if is_sale else (got, -paid)
    after = quote.after
    if not isinstance(after, ConstantProduct):
        raise LiquidityError("the pool changed its kind")
    return (
        paid,
        got,
        msgspec.structs.replace(
            wallet, weth=wallet.weth + weth, usdt=wallet.usdt + usdt, pool_weth=after.reserve_0, pool_usdt=after.reserve_1
        ),
    )
