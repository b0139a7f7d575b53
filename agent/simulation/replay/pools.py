"""The pools of a replay, as deep as the sandbox's, and whoever keeps their prices near the exchange's.

What a swap gives is reckoned by `agent.liquidity`, which is tested to be what the contracts would give, to the unit.
"""

from fractions import Fraction
from math import isqrt

from agent.domain.instrument import PIPS, Instrument, Pool
from agent.domain.market import PoolRanges, PoolReserves
from agent.liquidity.concentrated import AMOUNT_MAX, Concentrated, checked, swap
from agent.liquidity.constant_product import ConstantProduct
from agent.liquidity.quote import Quote
from agent.liquidity.tick_math import TICK_MAX, TICK_MIN, tick_at_sqrt_price
from agent.simulation.chain.shape import DEPTH_ETH, POSITIONS, START_OFFSET_BPS, V2_WETH
from agent.simulation.drill.market import USDT, WETH
from agent.simulation.replay.setting import POOLS

State = ConstantProduct | Concentrated
LEG_GAS = {"v2": 55_000, "v3": 70_000}  # for planning, as the adapter of Uniswap plans
KINDS = (("v2", 3_000, 0), ("v3", 500, 10), ("v3", 3_000, 60))  # protocol, fee in pips, tick spacing
ARBITRAGE_GAS = 250_000
RAW = Fraction(10**USDT.decimals, 10**WETH.decimals)  # raw dollars per raw ether, for a price of one
_Q96 = 1 << 96
_WETH_IS_0 = int(WETH.address, 16) < int(USDT.address, 16)


def listed() -> tuple[Instrument, ...]:
    """The pools as the venue lists them."""
    return tuple(_instrument(protocol, fee, spacing) for protocol, fee, spacing in KINDS)


def new_states(mid: Fraction) -> dict[str, State]:
    """By instrument id: pools whose prices lie about `mid` (dollars per ether), each within its own fee, as on a public chain."""
    found: dict[str, State] = {}
    for protocol, fee, spacing in KINDS:
        name = f"{protocol}-{fee}"
        price = mid * (10_000 + START_OFFSET_BPS[name]) / 10_000
        found[f"{POOLS}:{name}"] = _pair(price, fee) if protocol == "v2" else _ranges(name, price, fee, spacing)
    return found


def fact(name: str, state: State, block: int, at_ns: int) -> PoolReserves | PoolRanges:
    """A pool as the venue tells of it."""
    if isinstance(state, ConstantProduct):
        return PoolReserves(name, state.reserve_0, state.reserve_1, block, at_ns)
    known = state.known_lower, state.known_upper
    return PoolRanges(name, state.sqrt_price_x96, state.tick, state.liquidity, state.ticks, *known, block, at_ns)


def arbitraged(state: State, mid: Fraction, gas_cost: Fraction) -> State | None:
    """The pool after whoever trades it against the exchange, to the edge of its fee and no further; None while that does not pay.

    `mid` in dollars per ether, `gas_cost` in dollars. Inside its own fee nobody can gain by trading a pool into line.
    """
    keep = Fraction(PIPS - state.fee_pips, PIPS)
    lowest, highest = _sqrt_x96(mid * keep), _sqrt_x96(mid / keep)
    at, liquidity = _standing(state)
    if lowest <= at <= highest:
        return None
    target = lowest if at < lowest else highest
    weth = Fraction(liquidity * _Q96 * abs(target - at), at * target * 10**WETH.decimals)
    deviation = abs(Fraction(at * at, target * target) - 1)
    if weth * mid * deviation / 2 <= gas_cost:
        return None
    return _moved(state, at, liquidity, target)


def quote(state: State, amount: int, *, is_sale: bool, exact: str) -> Quote:
    """What a swap gives; raises LiquidityError. `is_sale`: ether goes in."""
    zero_for_one = is_sale == _WETH_IS_0
    return state.swap_in(amount, zero_for_one) if exact == "sell" else state.swap_out(amount, zero_for_one)


def _instrument(protocol: str, fee: int, spacing: int) -> Instrument:
    kind = "v2" if protocol == "v2" else "v3"
    address = "0x" + f"{fee:04x}".rjust(40, "c" if protocol == "v2" else "d")
    tokens = (WETH.address, USDT.address) if _WETH_IS_0 else (USDT.address, WETH.address)
    pool = Pool("v2" if kind == "v2" else "v3", address, *tokens, spacing)
    return Instrument(POOLS, f"{protocol}-{fee}", WETH, USDT, fee, pool=pool, gas=LEG_GAS[kind])


def _pair(price: Fraction, fee_pips: int) -> ConstantProduct:
    weth, usdt = V2_WETH, int(V2_WETH * price * RAW)
    return ConstantProduct(weth, usdt, fee_pips) if _WETH_IS_0 else ConstantProduct(usdt, weth, fee_pips)


def _ranges(name: str, price: Fraction, fee_pips: int, spacing: int) -> Concentrated:
    """Nested positions around the price, so that depth thins out away from it and a swap crosses initialised ticks."""
    root = _sqrt_x96(price)
    middle_tick = tick_at_sqrt_price(root)
    centre = middle_tick // spacing * spacing
    # dx = L d(1/sqrt P): ten basis points take L / sqrt(P) x 0.0005 of ether (Uniswap v3 whitepaper, 6.16)
    whole = DEPTH_ETH[name] * 2_000 * 10**WETH.decimals * min(root, _Q96 * _Q96 // root) // _Q96
    nets: dict[int, int] = {}
    inside = 0
    for half, shift, percent in POSITIONS:
        middle = centre + (shift if _WETH_IS_0 else -shift) // spacing * spacing
        reach = max(half // spacing, 1) * spacing
        lower, upper, liquidity = middle - reach, middle + reach + spacing, whole * percent // 100
        nets[lower] = nets.get(lower, 0) + liquidity
        nets[upper] = nets.get(upper, 0) - liquidity
        inside += liquidity if lower <= middle_tick < upper else 0
    ticks = tuple(sorted((tick, net) for tick, net in nets.items() if net))
    return checked(Concentrated(root, middle_tick, inside, fee_pips, spacing, ticks, TICK_MIN, TICK_MAX))


def _standing(state: State) -> tuple[int, int]:
    """(root of the price with 96 fractional bits, liquidity there)."""
    if isinstance(state, ConstantProduct):
        return isqrt((state.reserve_1 << 192) // state.reserve_0), isqrt(state.reserve_0 * state.reserve_1)
    return state.sqrt_price_x96, state.liquidity


def _moved(state: State, at: int, liquidity: int, target: int) -> State:
    zero_for_one = at > target
    if isinstance(state, Concentrated):
        after = swap(state, AMOUNT_MAX, zero_for_one, exact_in=True, limit_x96=target).after
    else:
        wanted = liquidity * _Q96 // target if zero_for_one else liquidity * target // _Q96
        held = state.reserve_0 if zero_for_one else state.reserve_1
        after = state.swap_in((wanted - held) * PIPS // (PIPS - state.fee_pips), zero_for_one).after
    assert isinstance(after, ConstantProduct | Concentrated), "a pool stays what it is"
    return after


def _sqrt_x96(price: Fraction) -> int:
    """The root of a pool's price for dollars per ether, 96 fractional bits, rounded down."""
    raw = price * RAW if _WETH_IS_0 else 1 / (price * RAW)
    return isqrt((raw.numerator << 192) // raw.denominator)
