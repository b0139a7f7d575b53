"""What decisions look at beside the journaled state: the user's settings, and what is known of the outside now."""

import msgspec

from agent.domain.price import Price
from agent.market.view import Market
from agent.ports import Allowance, Profile
from agent.risk.limits import Limits
from agent.routing.cost import BATCH_GAS, GasPrice


class Rules(msgspec.Struct, frozen=True):
    """The user's settings that decisions depend on."""

    limits: Limits
    slippage_bps: int = 10  # how much worse than its quote a child may trade
    deadline_s: int = 60  # how long a batch may wait for its block
    gas_tip: int = 10**9
    gas_base: int = BATCH_GAS  # of a batch itself: router, permit, token transfers


class World(msgspec.Struct):
    """What is known of the outside and not journaled."""

    market: Market
    profiles: dict[str, Profile]
    live: frozenset[str]  # venues that are not on this machine
    allowances: dict[tuple[str, str], Allowance]
    nonces: dict[str, int]  # venue -> transactions mined from its wallet, as last seen
    ready: set[str]  # venues that are connected and reconciled


def gas_prices(world: World, rules: Rules, mid: Price) -> dict[int, GasPrice]:
    """What gas costs on each chain, in the quote group. The base group of every market here is the chain's own coin."""
    return {
        head.chain_id: GasPrice(head.chain_id, head.base_fee + rules.gas_tip, mid, rules.gas_base)
        for head in world.market.heads().values()
    }
