"""What a chain knows, as plain data: transactions, receipts, blocks, the wallet; one ledger that can be written down."""

import hashlib

import msgspec

from agent.domain.amount import Amount
from agent.domain.order import Fill
from agent.domain.plan import Plan
from agent.simulation.drill.clock import SECOND, START_NS, Dice
from agent.simulation.drill.market import COIN, COIN_WHOLE, ETH_WHOLE, PRICE_TICKS, USDT, USDT_WHOLE, WETH

GWEI = 10**9
POOL_WETH = 10_000 * 10**18


class NodeError(Exception):
    """The node answers a send with an error, in the words of geth."""


class Body(msgspec.Struct, frozen=True):
    """What a transaction's bytes say. `plan` None: it is not of this agent."""

    order_id: str
    nonce: int
    gas_limit: int
    fee_max: int
    tip: int
    plan: Plan | None = None


class Tx(msgspec.Struct, frozen=True):
    hash: str
    body: Body
    seen_ns: int


class Wallet(msgspec.Struct, frozen=True):
    """What a block can change: the account's coins and numbers, and the pool."""

    coin: int = COIN_WHOLE * 10**18
    weth: int = ETH_WHOLE * 10**18
    usdt: int = USDT_WHOLE * 10**6
    nonce: int = 0
    allowed_weth: int = 0
    allowed_usdt: int = 0
    permit_weth: int = 0
    permit_usdt: int = 0
    pool_weth: int = POOL_WETH
    pool_usdt: int = POOL_WETH * PRICE_TICKS // 10**14


class Receipt(msgspec.Struct, frozen=True):
    """What became of a transaction in a block. `trouble`: why it reverted."""

    tx: Tx
    cost: int
    gas_used: int
    trouble: str
    fills: tuple[Fill, ...] = ()


class Block(msgspec.Struct, frozen=True):
    number: int
    hash: str
    parent: str
    base_fee: int
    timestamp_s: int
    receipts: tuple[Receipt, ...]
    before: Wallet


class ChainLedger(msgspec.Struct):
    """All that a chain knows. `held`: every transaction that any node ever saw, so that an older one may still be mined."""

    dice: Dice
    now_ns: int = START_NS
    next_ns: int = START_NS + SECOND
    block_ns: int = SECOND
    base_fee: int = GWEI
    fee_floor: int = GWEI
    wallet: Wallet = Wallet()
    blocks: list[Block] = []
    mempool: dict[str, Tx] = {}
    held: dict[str, Tx] = {}
    forks: int = 0
    reorgs: list[int] = []  # their depths
    effects: dict[int, str] = {}  # nonce -> hash that stands in the chain now
    blunders: list[str] = []  # what a careful wallet never does
    arrivals: list[str] = []  # every hash that reached the node
    foreign: list[int] = []  # nonces that somebody else used
    revert_percent: int = 0
    older_percent: int = 0  # how often the miner has only an older attempt
    reverted: int = 0
    older_mined: int = 0
    failed: list[str] = []  # hashes that reverted in a block which is gone
    revived: list[str] = []  # those of them that succeeded afterwards
    is_stalled: bool = False  # no blocks at all
    is_deaf: bool = False  # blocks come, and ours is in none of them


def hash_of(raw: bytes) -> str:
    """A transaction's name, from its bytes."""
    return "0x" + hashlib.sha256(raw).hexdigest()


def balances(wallet: Wallet) -> tuple[Amount, ...]:
    return (Amount(wallet.coin, COIN), Amount(wallet.weth, WETH), Amount(wallet.usdt, USDT))
