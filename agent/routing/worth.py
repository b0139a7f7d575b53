"""What exact legs are worth in the quote group, after gas: the yardstick for comparing routes to the last unit."""

from collections.abc import Mapping, Sequence

from agent.domain.amount import Amount, rescale_down
from agent.domain.instrument import Instrument
from agent.market.view import Source, chain_of
from agent.routing.cost import GasPrice, gas_up, spread_up
from agent.routing.exact import Leg
from agent.routing.problem import Order, scale


def net(order: Order, sources: Sequence[Source], legs: Sequence[Leg], gas: Mapping[int, GasPrice]) -> int:
    """Quote group units received (negative: paid) after fee and gas, the untraded rest at its bad price. More is better."""
    sign = 1 if order.side == "sell" else -1
    total = -sum(gas_shares(order, sources, legs, gas))
    left = order.quantity.units
    for leg in legs:
        found = sources[leg.i].instrument
        total += sign * _value(order, found, leg)
        left -= leg.base * scale(order, found)
    rest = order.rest
    top: int = left * rest.num * 10**order.quote.decimals
    bottom: int = rest.den * 10**order.quantity.asset.decimals
    return total + sign * (top // bottom)


def gas_shares(order: Order, sources: Sequence[Source], legs: Sequence[Leg], gas: Mapping[int, GasPrice]) -> list[int]:
    """What gas costs each leg, in quote group units: its own, and its share by value of what its chain's batch costs once."""
    shares = [0] * len(legs)
    chains: dict[int, list[int]] = {}
    for place, leg in enumerate(legs):
        found = sources[leg.i].instrument
        chain_id = None if found.is_book else chain_of(found)
        if chain_id is not None:
            chains.setdefault(chain_id, []).append(place)
    for chain_id, places in chains.items():
        price = gas[chain_id]
        units = [sources[legs[place].i].instrument.gas for place in places]
        values = [_value(order, sources[legs[place].i].instrument, legs[place]) for place in places]
        weights = [unit * sum(values) + price.batch_gas * value for unit, value in zip(units, values, strict=True)]
        total = gas_up(price.batch_gas + sum(units), price, order.quote).units
        for place, part in zip(places, spread_up(total, weights), strict=True):
            shares[place] = part
    return shares


def _value(order: Order, found: Instrument, leg: Leg) -> int:
    return int(rescale_down(Amount(leg.quote, found.quote), order.quote).units)


def piece_prices(order: Order, base: Amount, quote: Amount, gas: int) -> tuple[float, float]:
    """(after the fee, after fee and gas), in quote coins per base coin: for reading, not for money."""
    coins = base.units / 10**base.asset.decimals
    value, cost = quote.units / 10**quote.asset.decimals, gas / 10**order.quote.decimals
    return value / coins, (value - cost if order.side == "sell" else value + cost) / coins
