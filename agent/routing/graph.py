"""From books, pools and conversions to a network: coins at their places are its nodes, every way to swap one for another an edge.

The same coin at two places is two nodes, joined by nothing but a `Conversion` that says what the move costs. Two exceptions, as in
a split: what is sold may be given wherever the account has it, and what is bought counts wherever it arrives, at par unless a
conversion into the group itself prices it. Nothing is routed through the group that is sold, or on from the one that is bought.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from math import inf, sqrt
from typing import TypeVar

import msgspec

from agent.domain.amount import Amount, Asset
from agent.domain.plan import Reason
from agent.domain.price import Price, decimal_of
from agent.liquidity.curves import segments
from agent.market.view import Source, chain_of
from agent.routing.cost import Charge, GasPrice, gas_up
from agent.routing.curve import Curve, charged, threshold
from agent.routing.edges import Edges
from agent.routing.problem import NO_GAS_PRICE
from agent.routing.terms import BAD_DECIMALS

Node = TypeVar("Node", int, str)

FIRST_RAMP = 1e-3  # a step that nothing stands before, relative to its z
_REST_WIDTH = 1e-2  # what stays unsold is a range, no step, so that a network of pools needs no ramps; it has no end
_ROOM = 2.0  # an end that is met would be one more kink at the very answer
_NEVER = 1e150  # the z of an edge that never opens


class Conversion(msgspec.Struct, frozen=True):
    """A way from one asset of a group to another: a wrapped coin, a bridge, a withdrawal, a peg that is not quite one.

    `price`: whole coins received per coin given (the peg); `bps` come off that, and `fixed` (of `give`) off what is given first.
    `most` (of `give`) is what one may give. `receive` may be the group itself (home `*`): what such a coin counts for when bought.
    """

    give: Asset
    receive: Asset
    price: Price
    bps: int = 0
    fixed: Amount | None = None
    most: Amount | None = None
    why: str = ""

    @property
    def name(self) -> str:
        return f"{self.give.id} -> {self.receive.id}"

    def received_down(self, units: int) -> int:
        """What `units` of `give` become, rounded down; 0 where they do not cover the fixed cost."""
        left = max(units - (self.fixed.units if self.fixed else 0), 0)
        top = left * self.price.num * (10_000 - self.bps) * 10**self.receive.decimals
        return int(top // (self.price.den * 10_000 * 10**self.give.decimals))


class Held(msgspec.Struct, frozen=True):
    """What the account can give of one asset of the group that is sold."""

    most: Amount


class Way(msgspec.Struct, frozen=True):
    """One edge: `what` swaps `give` for `receive`. `forward`: base for quote. `curve`: input over z = 1/sqrt(output per input)."""

    what: Source | Conversion | Held
    give: Asset
    receive: Asset
    forward: bool
    curve: Curve
    tail: int
    head: int


class Graph(msgspec.Struct, frozen=True):
    """`places[0]` is the group that is sold, the last one the group that is bought. `sold`: whole coins.

    `costs[e]`: of using way e, in coins bought, but for a conversion in coins given; `chains[e]`: where it needs a batch.
    """

    places: tuple[Asset, ...]
    ways: tuple[Way, ...]
    costs: tuple[float, ...]
    chains: tuple[int | None, ...]
    batches: Mapping[int, float]
    sold: float
    rejected: tuple[Reason, ...]


def build(
    sources: Sequence[Source],
    conversions: Sequence[Conversion],
    sell: Amount,
    buy: Asset,
    gas: Mapping[int, GasPrice],
    capacity: Mapping[str, Amount] | None,
    charges: Mapping[str, Charge],
) -> Graph:
    """The network of everything that lies on some way from what is sold to what is bought."""
    rejected: list[Reason] = []
    found: list[Way] = []
    usable = [source for source in sources if not _refused(source, sell, buy, gas, rejected)]
    priced = {one.give.id for one in conversions if one.receive == buy}
    for source in usable:
        base, quote = source.instrument.base, source.instrument.quote
        charge = charges.get(source.instrument.id)
        for give, receive in ((base, quote), (quote, base)):
            if receive.group != sell.asset.group and give.group != buy.group:
                curve = source_curve(source, give is base)
                found.append(_way(source, give, receive, charged(curve, charge.pips, "sell") if charge else curve))
    sound = [one for one in conversions if not _too_fine((one.give, one.receive), one.name, sell, buy, rejected)]
    found.extend(_way(one, one.give, one.receive, conversion_curve(one)) for one in sound if one.give != buy)
    for name in sorted(capacity or {}):
        held = (capacity or {})[name]
        if held.asset.group == sell.asset.group and held.units > 0 and held.asset.decimals <= sell.asset.decimals:
            size = held.units / 10**held.asset.decimals
            found.append(_way(Held(held), sell.asset, held.asset, Curve(True, [1.0], [size], [size], [0.0])))
    return _joined(found, priced, sell, buy, gas, capacity is None, tuple(rejected))


def source_curve(source: Source, forward: bool) -> Curve:
    """A book or pool as its taker sees it who gives base (forward) or quote: input, output and slope over z, in whole coins."""
    found = source.instrument
    zs: list[float] = []
    taken: list[float] = []
    given: list[float] = []
    slopes: list[float] = []
    paid = received = stop = 0.0
    for one in segments(
        source.state,
        selling=forward,
        base_decimals=found.base.decimals,
        quote_decimals=found.quote.decimals,
        base_is_0=found.is_book or found.base_is_token0,
    ):
        z = 1 / sqrt(one.price_start) if forward else sqrt(one.price_start)
        if one.slope == 0.0:
            paid += one.base_capacity * (1.0 if forward else one.price_start)
            received += one.base_capacity * (one.price_start if forward else 1.0)
            _append((zs, taken, given, slopes), (z, paid, received, 0.0))
            continue
        if zs and z > stop:  # a gap without liquidity
            _append((zs, taken, given, slopes), (stop, paid, received, 0.0))
        _append((zs, taken, given, slopes), (z, paid, received, one.slope))
        if one.price_end in (0.0, inf):
            return Curve(False, zs, taken, given, slopes)
        stop = 1 / sqrt(one.price_end) if forward else sqrt(one.price_end)
        paid += one.slope * (stop - z)
        received += one.slope * (1 / z - 1 / stop)
    if zs and not found.is_book:
        _append((zs, taken, given, slopes), (stop, paid, received, 0.0))
    return Curve(found.is_book, zs, taken, given, slopes)


def conversion_curve(one: Conversion) -> Curve:
    """A step at one price; endless without a `most`, until `_joined` knows what an order can send there."""
    rate = float(decimal_of(one.price)) * (1 - one.bps / 10_000)
    size = one.most.units / 10**one.give.decimals if one.most else inf
    return Curve(True, [1 / sqrt(rate)], [size], [size * rate], [0.0]) if rate > 0 and size > 0 else Curve(True, [], [], [], [])


def flatten(graph: Graph, rest: float, worth: Sequence[float] | None) -> Edges:
    """The lists that the solver works on. The last edge is what stays unsold, at prices below `rest` coins bought per coin sold.

    `worth`: about what a coin is worth at each place, to count fixed costs in the coins of each edge's head; None: there are none.
    """
    flat = Edges(*([] for _ in Edges._fields))
    for way, fixed in zip(graph.ways, graph.costs, strict=True):
        cost = 0.0 if worth is None else fixed if isinstance(way.what, Source) else fixed * worth[way.tail]
        gate = _gated(way.curve, cost / worth[way.head]) if worth is not None and cost > 0 else []
        flat.tail.append(way.tail)
        flat.head.append(way.head)
        flat.cost.append(cost)
        _lay(flat, flat.first, flat.last, _pieces(way.curve))
        _lay(flat, flat.gate_first, flat.gate_last, gate)
    z = 1 / sqrt(rest)
    flat.tail.append(0)
    flat.head.append(len(graph.places) - 1)
    flat.cost.append(0.0)
    _lay(flat, flat.first, flat.last, [(z, 0.0, 0.0, graph.sold / (_REST_WIDTH * z), 0.0)])
    _lay(flat, flat.gate_first, flat.gate_last, [])
    return flat


def reached(start: Node, steps: Sequence[tuple[Node, Node]]) -> set[Node]:
    """All that can be reached from a start over steps (from, to), itself included."""
    following: dict[Node, list[Node]] = {}
    for tail, head in steps:
        following.setdefault(tail, []).append(head)
    found, stack = {start}, [start]
    while stack:
        for head in following.get(stack.pop(), ()):
            if head not in found:
                found.add(head)
                stack.append(head)
    return found


Piece = tuple[float, float, float, float, float]  # z, taken, given, slope, width of the ramp


def _pieces(curve: Curve) -> list[Piece]:
    if not curve.is_book:
        return [(*row, 0.0) for row in zip(curve.u, curve.base, curve.quote, curve.slope, strict=True)]
    found: list[Piece] = []
    taken = given = 0.0
    for k, (z, base, quote) in enumerate(zip(curve.u, curve.base, curve.quote, strict=True)):
        near = curve.u[max(k - 1, 0)] if k or len(curve.u) == 1 else z - (curve.u[1] - z)
        width = 1 - near / z if near != z else FIRST_RAMP
        found += [(z, taken, given, 0.0, min(width, FIRST_RAMP) if k == 0 else width), (z, base, quote, 0.0, 0.0)]
        taken, given = base, quote
    return found


def _gated(curve: Curve, cost: float) -> list[Piece]:
    """The same pool as it is worth with its fixed cost: nothing until it earns that, then all at once (its concave envelope)."""
    z = threshold(curve, cost, "sell")
    if not z < _NEVER:
        return [(_NEVER, 0.0, 0.0, 0.0, 0.0)]
    k = max(k for k, u in enumerate(curve.u) if u <= z)
    jump = curve.base[k] + curve.slope[k] * (z - curve.u[k])
    width = min(FIRST_RAMP, 1 - curve.u[0] / z)
    found: list[Piece] = [(z, 0.0, 0.0, 0.0, width), (z, jump, jump / (z * z), curve.slope[k], 0.0)]
    rows = zip(curve.u[k + 1 :], curve.base[k + 1 :], curve.quote[k + 1 :], curve.slope[k + 1 :], strict=True)
    return found + [(u, base, quote - cost, slope, 0.0) for u, base, quote, slope in rows]


def _lay(flat: Edges, first: list[int], last: list[int], pieces: Sequence[Piece]) -> None:
    first.append(len(flat.at))
    for piece in pieces:
        _append((flat.at, flat.taken, flat.given, flat.slope, flat.width), piece)
    last.append(len(flat.at))
    if any(piece[4] > 0 for piece in pieces):
        flat.steps.extend((first[-1], last[-1]))


def _append(columns: Sequence[list[float]], row: Sequence[float]) -> None:
    for column, value in zip(columns, row, strict=True):
        column.append(value)


def _refused(source: Source, sell: Amount, buy: Asset, gas: Mapping[int, GasPrice], rejected: list[Reason]) -> bool:
    found = source.instrument
    if _too_fine((found.base, found.quote), found.id, sell, buy, rejected):
        return True
    if found.is_book or chain_of(found) in gas:
        return False
    rejected.append(Reason(NO_GAS_PRICE, f"{found.id}: the price of gas on its chain is not known"))
    return True


def _too_fine(assets: Sequence[Asset], name: str, sell: Amount, buy: Asset, rejected: list[Reason]) -> bool:
    ends = {sell.asset.group: sell.asset.decimals, buy.group: buy.decimals}
    if all(asset.decimals <= ends.get(asset.group, asset.decimals) for asset in assets):
        return False
    rejected.append(Reason(BAD_DECIMALS, f"{name}: counts finer than the order does; state the order in more decimals"))
    return True


def _way(what: Source | Conversion | Held, give: Asset, receive: Asset, curve: Curve) -> Way:
    forward = isinstance(what, Source) and give is what.instrument.base
    return Way(what, give, receive, forward, curve, -1, -1)


def _joined(
    found: Sequence[Way],
    priced: set[str],
    sell: Amount,
    buy: Asset,
    gas: Mapping[int, GasPrice],
    everywhere: bool,
    rejected: tuple[Reason, ...],
) -> Graph:
    """Number the places that are on a way, and keep the ways between them."""

    def place(asset: Asset) -> str:
        if asset.group == sell.asset.group and (everywhere or asset == sell.asset):
            return "sold"
        return "bought" if asset.group == buy.group and asset.id not in priced else asset.id

    ends = [(way, place(way.give), place(way.receive)) for way in found if way.curve.u]
    ends = [(way, tail, head) for way, tail, head in ends if tail != head and head != "sold" and tail != "bought"]
    after = reached("sold", [(tail, head) for _, tail, head in ends])
    before = reached("bought", [(head, tail) for _, tail, head in ends])
    assets: dict[str, Asset] = {"sold": sell.asset}
    kept = [(way, tail, head) for way, tail, head in ends if tail in after and head in after and tail in before and head in before]
    for way, tail, head in kept:
        for name, asset in ((tail, way.give), (head, way.receive)):
            if name not in ("sold", "bought"):
                assets.setdefault(name, asset)
    assets["bought"] = buy
    number = {name: k for k, name in enumerate(assets)}
    ways = [msgspec.structs.replace(way, tail=number[tail], head=number[head]) for way, tail, head in kept]
    ways = _bounded(ways, len(number), _coins(sell))
    chains = tuple(_chain(way) for way in ways)
    costs = tuple(_cost(way, chain, gas, buy) for way, chain in zip(ways, chains, strict=True))
    batches = {k: _coins(gas_up(gas[k].batch_gas, gas[k], buy)) for k in sorted({k for k in chains if k is not None})}
    return Graph(tuple(assets.values()), tuple(ways), costs, chains, batches, _coins(sell), rejected)


def _bounded(ways: list[Way], places: int, sold: float) -> list[Way]:
    """Books and conversions end where all of the order, brought there at the best prices, ends: no more flows without a circle."""
    most = [sold] + [0.0] * (places - 1)
    for _ in range(places):
        before = list(most)
        for way in ways:
            most[way.head] = max(most[way.head], most[way.tail] / way.curve.u[0] ** 2)
        if most == before:
            break
    return [msgspec.structs.replace(way, curve=_ended(way.curve, _ROOM * most[way.tail])) for way in ways]


def _ended(curve: Curve, most: float) -> Curve:
    """The same steps, the last one cut where `most` is in."""
    if not curve.is_book or curve.base[-1] <= most:
        return curve
    k = bisect_left(curve.base, most)
    before, given = (curve.base[k - 1], curve.quote[k - 1]) if k else (0.0, 0.0)
    out = given + (most - before) / curve.u[k] ** 2
    return Curve(True, curve.u[: k + 1], [*curve.base[:k], most], [*curve.quote[:k], out], [0.0] * (k + 1))


def _chain(way: Way) -> int | None:
    found = way.what.instrument if isinstance(way.what, Source) else None
    return chain_of(found) if found and not found.is_book else None


def _cost(way: Way, chain: int | None, gas: Mapping[int, GasPrice], buy: Asset) -> float:
    if isinstance(way.what, Source):
        units = way.what.instrument.gas
        return 0.0 if chain is None or not units else _coins(gas_up(units, gas[chain], buy))
    return _coins(way.what.fixed) if isinstance(way.what, Conversion) and way.what.fixed else 0.0


def _coins(amount: Amount) -> float:
    coin: int = 10**amount.asset.decimals
    return amount.units / coin
