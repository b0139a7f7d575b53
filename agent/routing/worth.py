"""What exact legs are worth in the quote group, after gas: the yardstick for comparing routes to the last unit."""

from collections.abc import Mapping, Sequence

from agent.domain.amount import Amount
from agent.domain.instrument import PIPS
from agent.routing.cost import GasPrice, gas_up, spread_up
from agent.routing.exact import Leg
from agent.routing.problem import Task
from agent.routing.terms import Order


def net(task: Task, legs: Sequence[Leg], gas: Mapping[int, GasPrice]) -> int:
    """Quote group units received (negative: paid) after fee, gas and charges, the rest at its bad price. More is better."""
    order, rest = task.order, task.rest
    sign = 1 if order.side == "sell" else -1
    total = -sum(gas_shares(task, legs, gas))
    left = order.quantity.units
    for leg in legs:
        terms = task.terms[leg.i]
        value = leg.quote * terms.quote_scale
        charge = order.charges.get(terms.id) if order.charges else None
        total += sign * value - (-(-value * charge.pips // PIPS) if charge else 0)
        left -= leg.base * terms.scale
    top: int = left * rest.num * 10**order.quote.decimals
    bottom: int = rest.den * 10**order.quantity.asset.decimals
    return total + sign * (top // bottom)


def gas_shares(task: Task, legs: Sequence[Leg], gas: Mapping[int, GasPrice]) -> list[int]:
    """What gas costs each leg, in quote group units: its own, and its share by value of what its chain's batch costs once."""
    shares = [0] * len(legs)
    chains: dict[int, list[int]] = {}
    for place, leg in enumerate(legs):
        chain_id = task.terms[leg.i].chain
        if chain_id is not None:
            chains.setdefault(chain_id, []).append(place)
    for chain_id, places in chains.items():
        price = gas[chain_id]
        units = [task.terms[legs[place].i].found.gas for place in places]
        values = [legs[place].quote * task.terms[legs[place].i].quote_scale for place in places]
        weights = [unit * sum(values) + price.batch_gas * value for unit, value in zip(units, values, strict=True)]
        total = gas_up(price.batch_gas + sum(units), price, task.order.quote).units
        for place, part in zip(places, spread_up(total, weights), strict=True):
            shares[place] = part
    return shares


def piece_prices(order: Order, base: Amount, quote: Amount, gas: int) -> tuple[float, float]:
    """(after the fee, after fee and gas), in quote coins per base coin: for reading, not for money."""
    coins = base.units / 10**base.asset.decimals
    value, cost = quote.units / 10**quote.asset.decimals, gas / 10**order.quote.decimals
    return value / coins, (value - cost if order.side == "sell" else value + cost) / coins
