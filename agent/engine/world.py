"""What decisions look at beside the journaled state: the user's settings, and what is known of the outside now."""

from collections import deque
from collections.abc import Callable

import msgspec

from agent.domain.instrument import Side
from agent.domain.intent import Intent
from agent.domain.price import Price
from agent.engine.explain import Question
from agent.market.view import Market
from agent.ports import Allowance, Forecaster, Profile, Simulated
from agent.risk.limits import Limits
from agent.routing import kernel
from agent.routing.cost import BATCH_GAS, GasPrice
from agent.routing.memo import Memo
from agent.routing.scorecard import Scoring
from agent.routing.search import Search
from agent.settlement.knobs import Knobs

UNQUOTED_MAX = 512  # parents of which nobody has worked out yet what they would have given at once; the oldest go without
UNEXPLAINED_MAX = 16  # routes that wait for their words; the oldest go without

NATIVE_GROUP = "ETH"  # the group of every supported chain's own coin


class Rules(msgspec.Struct, frozen=True):
    """The user's settings that decisions depend on."""

    limits: Limits
    slippage_bps: int = 10  # how much worse than its quote a child may trade
    deadline_s: int = 60  # how long a batch may wait for its block
    gas_tip: int = 10**9
    gas_base: int = BATCH_GAS  # of a batch itself: router, permit, token transfers
    slice_gas_bps_max: int = 10  # of a slice, where only pools trade a market: a smaller one waits until it is worth its gas
    outbid_after_s: int = 30  # a transaction that waits longer for its block is outbid
    knobs: Knobs = Knobs()
    scoring: Scoring = Scoring()


class Sleeper(msgspec.Struct, frozen=True):
    """A parent as it stood when nothing was to be done, and until when only a change of it could change that."""

    until_ns: int
    intent: Intent
    stood: tuple[int, int, int, bool, bool]


class World(msgspec.Struct):
    """What is known of the outside and not journaled."""

    market: Market
    profiles: dict[str, Profile]
    live: frozenset[str]  # venues that are not on this machine
    allowances: dict[tuple[str, str], Allowance]
    nonces: dict[str, int]  # venue -> transactions mined from its wallet, as last seen
    ready: set[str]  # venues that are connected and reconciled
    connected: set[str] = set()  # venues whose stream is up: what rests there can be taken back
    simulated: dict[str, Simulated] = {}  # order -> how its waiting transaction would fare in the newest block
    attempting: set[str] = set()  # orders for which another transaction is being signed or sent
    attempted_ns: dict[str, int] = {}  # order -> when the last one was begun
    anchoring: set[str] = set()  # venues whose next transaction writes the journal's head
    beat_ns: int = 0  # when the engine last went round
    sampled_ns: int = 0  # when it last noted where markets stand
    unexplained: deque[Question] = msgspec.field(default_factory=lambda: deque(maxlen=UNEXPLAINED_MAX))
    unquoted: deque[Question] = msgspec.field(default_factory=lambda: deque(maxlen=UNQUOTED_MAX))  # whole parents, as at arrival
    memos: dict[tuple[str, Side], Memo] = {}  # by market and side: what routes need not work out again
    new_search: Callable[[], Search] = lambda: kernel.search  # the everyday search of a memo, plain or compiled
    has_begun: bool = False  # all were ready once in this run: from then on, one that is away keeps nobody from the others

    sleepers: dict[str, Sleeper] = {}  # parents that nothing is to be done for until their time comes
    forecaster: Forecaster | None = None  # nobody's opinion: neutral

    def forecast(self, market: str, horizon_ns: int) -> float | None:
        """Where the middle is expected to go within the horizon, in basis points; None where nobody says."""
        return None if self.forecaster is None else self.forecaster.drift_bps(market, horizon_ns)

    def memo(self, market: str, side: Side) -> Memo:
        """The one for a market and side."""
        found = self.memos.get((market, side))
        if found is None:
            found = self.memos[market, side] = Memo(self.new_search())
        return found


def coin_price(world: World, quote: str, now_ns: int) -> Price | None:
    """What the coin that pays for gas is worth in the quote group, by the trusted view of its own market; None if nobody knows."""
    return world.market.view(f"{NATIVE_GROUP}/{quote}", now_ns).mid


def gas_prices(world: World, rules: Rules, quote: str, now_ns: int) -> dict[int, GasPrice]:
    """What gas costs on each chain, in the quote group. Empty when the coin has no price: then no pool is used."""
    price = coin_price(world, quote, now_ns)
    if price is None:
        return {}
    return {
        head.chain_id: GasPrice(head.chain_id, head.base_fee + rules.gas_tip, price, rules.gas_base)
        for head in world.market.heads().values()
    }
