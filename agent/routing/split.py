"""One order over many venues: how much goes where, at what price after every cost, and what any single venue would have given.

The search (`search`, `fill`) works in floats; its answer is made whole and quoted again in exact integers (`exact`). What cannot be
placed is named with its reason, and so is every source that was left out.
"""

from collections.abc import Mapping
from math import inf

import msgspec

from agent.domain.amount import Amount, group_asset, rescale_down, rescale_up
from agent.domain.events import Alternative, Routed, RoutePiece
from agent.domain.instrument import Instrument, Side
from agent.domain.plan import Reason
from agent.domain.price import Price
from agent.market.view import View
from agent.routing.compare import alternatives, best_of
from agent.routing.cost import Charge, GasPrice
from agent.routing.curve import price_at, quote_for, root
from agent.routing.exact import Broken, Leg, exact_leg, overdrawn, settle
from agent.routing.explain import left_out, rest_reason, why
from agent.routing.memo import Memo
from agent.routing.problem import Task, pose
from agent.routing.search import Choice, choose
from agent.routing.terms import Order, Rules
from agent.routing.worth import gas_shares, net, piece_prices

TRIES_MAX = 8  # how often the search is repeated when the exact quotes disagree with it
LOTS_FINE = 1e-6  # of a lot: the search's answer is whole already
CLOSE_ENOUGH = 1e-9  # of the worth that is possible: rounding otherwise gains nothing worth a look

NO_TRUSTED_PRICE = "NO_TRUSTED_PRICE"
NOTHING_FITS = "NOTHING_FITS"


class Piece(msgspec.Struct, frozen=True):
    """One instrument's part. `base` and `quote` are of the venue's assets, exact; `quote` is after the fee and before gas.

    Books keep their fee from what is received; when buying that is base, so `quote` counts the fee's worth on top of what is paid,
    and `base` is what the order is for. `ticks` is the worst level touched. `gas`: of the quote group, the batch's base gas shared.
    """

    instrument: Instrument
    base: Amount
    quote: Amount
    ticks: int
    lots: int
    share: float
    price: float
    price_all_in: float
    gas: Amount
    why: str


class Route(msgspec.Struct, frozen=True):
    """The split of `quantity`. `quote`: all pieces after fee and gas (quote group). `unplaced`: base group, with its reason.

    `marginal_price`: what the last coin brings or costs, after every cost, in quote coins. `gap_bps`: how far from the best split
    this one can be at most, lots and rounding included. `alternatives` answer "had the whole quantity been at one venue"; the
    balances that the account really has are ignored there.
    """

    side: Side
    quantity: Amount
    pieces: tuple[Piece, ...]
    quote: Amount
    gas: Amount
    unplaced: Amount
    unplaced_reason: Reason | None
    alternatives: tuple[Alternative, ...]
    best_single: Alternative | None
    rejected: tuple[Reason, ...]
    marginal_price: float = 0.0
    gap_bps: float = 0.0


class NoRoute(msgspec.Struct, frozen=True):
    """Nothing can be traded now, and why not."""

    side: Side
    quantity: Amount
    reasons: tuple[Reason, ...]
    rejected: tuple[Reason, ...]


def split(
    view: View,
    side: Side,
    quantity: Amount,
    capacity: Mapping[str, Amount],
    gas: Mapping[int, GasPrice],
    limit: Price | None = None,
    rules: Rules | None = None,
    charges: Mapping[str, Charge] | None = None,
    memo: Memo | None = None,
    is_explained: bool = True,
) -> Route | NoRoute:
    """The split of `quantity` (of the base group) that nets most when selling, or costs least when buying, after fees and gas.

    `capacity`: what the account can give at each place, by Asset.id: base when selling, quote when buying; what is missing is zero.
    `limit`: the worst price of any piece, before gas; for books before the fee. `charges`: see `Order`. `memo`: the one of this
    market and side, to be sooner. Without `is_explained` the same split comes without words and alternatives, and much sooner.
    Pure and deterministic.
    """
    if view.mid is None or quantity.units <= 0:
        return NoRoute(side, quantity, _hopeless(view, quantity), view.untrusted)
    order = Order(side, quantity, group_asset(view.market.partition("/")[2]), view.mid, limit, rules or Rules(), charges or {})
    task = pose(order, view.sources, capacity, gas, memo)
    choice, legs, worth, broken = _solve(task, gas)
    rejected = (*view.untrusted, *task.rejected, *broken)
    if choice is None or not legs:
        text = f"nothing of {quantity} can be traded within the limit, the balances and the minimum orders"
        return NoRoute(side, quantity, (Reason(NOTHING_FITS, text),), rejected)
    compared = alternatives(order, view.sources, gas) if is_explained else ()
    unused = left_out(task, choice, legs) if is_explained else []
    return _route(task, choice, legs, worth, gas, compared, (*rejected, *unused), is_explained=is_explained)


def report(route: Route, intent_id: str, slice_index: int) -> Routed:
    """The route as it is journaled: amounts in the groups, rounded down where an asset is finer than its group."""
    quote = route.quote.asset
    pieces = tuple(
        RoutePiece(
            piece.instrument.id,
            rescale_down(piece.base, route.quantity.asset),
            rescale_down(piece.quote, quote) if route.side == "sell" else rescale_up(piece.quote, quote),
            piece.share,
            piece.price,
            piece.price_all_in,
            piece.instrument.fee_pips,
            piece.gas,
            piece.why,
        )
        for piece in route.pieces
    )
    rejected = (*route.rejected, route.unplaced_reason) if route.unplaced_reason else route.rejected
    return Routed(intent_id, slice_index, route.quantity, pieces, route.quote, route.alternatives, rejected)


def _hopeless(view: View, quantity: Amount) -> tuple[Reason, ...]:
    if quantity.units <= 0:
        return (Reason(NOTHING_FITS, f"there is nothing to trade: the quantity is {quantity}"),)
    return (Reason(NO_TRUSTED_PRICE, f"no source of {view.market} can be trusted now; see the reasons of each"),)


def _solve(task: Task, gas: Mapping[int, GasPrice]) -> tuple[Choice | None, list[Leg], int, list[Reason]]:
    """Search, make whole, check in integers; where that disagrees, take the source out or shrink the balance and search again.

    The legs come with what they are worth, see `net`.
    """
    out: frozenset[int] = frozenset()
    broken: list[Reason] = []
    choice: Choice | None = None
    legs: list[Leg] = []
    for _ in range(TRIES_MAX):
        choice = _few(task, choose(task.problem, task.costs, out, task.search), out)
        if choice is None:
            break
        found = settle(task, choice)
        if isinstance(found, Broken):
            out |= {found.i}
            broken.append(Reason("BEYOND_LIMIT", found.why))
            continue
        over = overdrawn(task, found)
        if not over:
            legs = found
            break
        task = _shrunk(task, over)
    worth = net(task, legs, gas)
    if choice is not None and legs:
        legs, worth = _bumped(task, choice, legs, worth, gas)
    return choice, *_single(task, legs, worth, gas, out), broken


def _bumped(task: Task, choice: Choice, legs: list[Leg], worth: int, gas: Mapping[int, GasPrice]) -> tuple[list[Leg], int]:
    """It can be better to round one book up and to give the others less: coarse lots, or dust with no other place."""
    if _gap(task, choice, worth) <= CLOSE_ENOUGH:
        return legs, worth
    best = legs
    for i, base in enumerate(choice.filling.base[:-1]):
        found = task.sources[i].instrument
        if not found.is_book or base <= 0:
            continue
        lots = base * 10**found.base.decimals / found.lot_units
        if abs(lots - round(lots)) < LOTS_FINE:
            continue
        other = settle(task, choice, i)
        if isinstance(other, Broken) or overdrawn(task, other):
            continue
        value = net(task, other, gas)
        if value > worth:
            best, worth = other, value
    return best, worth


def _gap(task: Task, choice: Choice, worth: int) -> float:
    """How much less an exact worth is than what the search found possible, as a part of it."""
    possible = choice.worth * 10**task.order.quote.decimals
    return (possible - worth) / abs(possible) if possible else 0.0


def _few(task: Task, choice: Choice | None, out: frozenset[int]) -> Choice | None:
    """Without the pieces that are too many, or that bring less than a piece must."""
    rules = task.order.rules
    while choice is not None:
        used = [i for i, base in enumerate(choice.filling.base[:-1]) if base > 0]
        surplus = len(used) > rules.legs_max
        if len(used) < 2 or (not surplus and rules.improvement_bps_min <= 0):
            return choice
        tried = used if surplus else [min(used, key=choice.filling.base.__getitem__)]
        fewer = [(found, i) for i in tried if (found := choose(task.problem, task.costs, out | {i}, task.search)) is not None]
        best, gone = max(fewer, key=lambda pair: pair[0].worth)
        if not surplus and choice.worth - best.worth >= abs(choice.worth) * rules.improvement_bps_min / 10_000:
            return choice
        choice, out = best, out | {gone}
    return None


def _shrunk(task: Task, over: Mapping[int, int]) -> Task:
    caps = list(task.problem.caps)
    for number, taken in over.items():
        budget = task.budgets[number]
        assert budget is not None, "only balances that end can be overdrawn"
        caps[number] *= budget / taken * (1 - 1e-9)
    return msgspec.structs.replace(task, problem=msgspec.structs.replace(task.problem, caps=caps))


def _single(task: Task, legs: list[Leg], worth: int, gas: Mapping[int, GasPrice], out: frozenset[int]) -> tuple[list[Leg], int]:
    """Any one source alone, where that is better by the last unit: a route is never worse than its best single instrument."""
    best, problem = legs, task.problem
    coins = worth / 10**task.order.quote.decimals
    sign = 1 if problem.side == "sell" else -1
    even = sign * coins / problem.quantity * (1 - sign * CLOSE_ENOUGH)  # the price at which all of it would be worth as much
    start = root(even, problem.side) if even > 0 else inf
    for i, source in enumerate(task.sources):
        if problem.curves[i].u[0] > start or i in out or (len(legs) == 1 and legs[0].i == i) or _is_beaten(task, i, coins):
            continue
        found = source.instrument
        base = task.order.quantity.units // task.terms[i].scale
        base = base // found.lot_units * found.lot_units if found.is_book else base
        if base < 1 or task.problem.quantity < task.costs.least[i]:
            continue
        leg = exact_leg(task.order, source, i, base)
        if isinstance(leg, Broken) or _beyond_known(task, i, leg) or overdrawn(task, [leg]):
            continue
        alone = net(task, [leg], gas)
        if alone > worth:
            best, worth = [leg], alone
    return best, worth


def _is_beaten(task: Task, i: int, worth: float) -> bool:
    """Whether a source alone is surely no better than that many quote coins: floats err by far less than the margin asked for."""
    problem, curve = task.problem, task.problem.curves[i]
    base = min(problem.quantity, curve.base[-1])
    rest = quote_for(problem.curves[-1], problem.quantity - base) if base < problem.quantity else 0.0
    quote = quote_for(curve, base) + rest
    batch = sum([fee for pools, fee in task.costs.chains if i in pools])
    alone = (quote if problem.side == "sell" else -quote) - problem.gas[i] - batch
    return bool(alone < worth - abs(worth) * CLOSE_ENOUGH)


def _beyond_known(task: Task, i: int, leg: Leg) -> bool:
    """Whether a source would have to trade beyond the part of its curve that the limit allows."""
    curve, found = task.problem.curves[i], task.sources[i].instrument
    return bool(leg.base / 10**found.base.decimals > curve.base[-1] * (1 + 1e-12))


def _route(
    task: Task,
    choice: Choice,
    legs: list[Leg],
    worth: int,
    gas: Mapping[int, GasPrice],
    compared: tuple[Alternative, ...],
    rejected: tuple[Reason, ...],
    *,
    is_explained: bool,
) -> Route:
    order = task.order
    shares = gas_shares(task, legs, gas)
    pieces = [_piece(task, choice, leg, share, is_explained=is_explained) for leg, share in zip(legs, shares, strict=True)]
    pieces.sort(key=lambda piece: -piece.share)
    placed = sum(leg.base * task.terms[leg.i].scale for leg in legs)
    unplaced = Amount(order.quantity.units - placed, order.quantity.asset)
    paid = Amount(sum(shares), order.quote)
    total = sum(leg.quote * task.terms[leg.i].quote_scale for leg in legs)
    total += -paid.units if order.side == "sell" else paid.units
    return Route(
        order.side,
        order.quantity,
        tuple(pieces),
        Amount(total, order.quote),
        paid,
        unplaced,
        rest_reason(task, choice, unplaced) if unplaced else None,
        compared,
        best_of(order.side, compared),
        rejected,
        price_at(max(choice.filling.u[leg.i] for leg in legs)),
        max(_gap(task, choice, worth), 0.0) * 10_000,
    )


def _piece(task: Task, choice: Choice, leg: Leg, gas: int, *, is_explained: bool) -> Piece:
    order, source = task.order, task.sources[leg.i]
    found = source.instrument
    base, quote = Amount(leg.base, found.base), Amount(leg.quote, found.quote)
    share = leg.base * task.terms[leg.i].scale / order.quantity.units
    price, price_all_in = piece_prices(order, base, quote, gas)
    text = why(task, choice, leg, share, price_all_in) if is_explained else ""
    return Piece(found, base, quote, leg.ticks, leg.lots, share, price, price_all_in, Amount(gas, order.quote), text)
