"""The best way from one coin to another through every book and pool there is: over any number of hops, side by side, after all gas.

The dual (`dual`) gives the flow that is best where using a pool costs nothing; what is fixed (gas of a pool, of a chain's batch, of
a conversion) is decided by branch and bound: let each pool open where it earns its gas, and where one would be left half open, try
it in and out. So are circles, which no order of swaps can do. The answer is quoted again in exact integers (`paths`), and stands
beside a bound that no trade can beat.
"""

from collections.abc import Mapping, Sequence
from math import exp

import msgspec

from agent.domain.amount import Amount, group_asset
from agent.domain.instrument import PIPS
from agent.domain.plan import Reason
from agent.market.view import Source, chain_of
from agent.routing.cost import Charge, GasPrice, gas_up
from agent.routing.dual import plain
from agent.routing.edges import GATED, OPEN, OUT, Flow, Prepare, Solver
from agent.routing.graph import Conversion, Graph, build, flatten, reached
from agent.routing.laplacian import HOPS_MAX
from agent.routing.paths import Broken, Hop, Settled, cycle, is_book, settle, used
from agent.routing.single import paths
from agent.routing.split import NOTHING_FITS

FIRST_MAX = 100  # networks solved beyond the effort for a first answer
GATES_MAX = 4  # times that gates are laid anew in one search
_FAR = 3e-3  # in log worth: how far gates may be from the worths at which they were laid
_SMALL = 1e-3  # of the order: with less, rounding to units may cost more than it brings
_WHOLE = 1 - 1e-6  # of the jump with which a gated pool opens: less is half open


class Effort(msgspec.Struct, frozen=True):
    """How long to decide about fixed costs: `solves_max` networks at most are solved; a gain below `gap_bps` is not looked for."""

    solves_max: int = 40
    gap_bps: float = 1e-3


class Network(msgspec.Struct, frozen=True):
    """`sell` into `net` of the group that is bought: `received` less `gas` (batches included). Exact; hops in order.

    Where sources are charged, the charges are taken off net before it is compared with the bound.

    `left`: what stays unsold, or on the way because it fills no lot. `bound`: coins that no trade over these sources can beat, with
    what is left counted at `prices` (coins bought per coin, by the asset's or group's name); `gap_bps`: how far net and left are
    from it. `residual`: the most that the flow before rounding lost or gained at a place. `solves`: networks solved.
    """

    sell: Amount
    hops: tuple[Hop, ...]
    received: Amount
    gas: Amount
    net: Amount
    left: tuple[Amount, ...]
    bound: float
    gap_bps: float
    prices: Mapping[str, float]
    residual: float
    solves: int
    rejected: tuple[Reason, ...]

    @property
    def conversions(self) -> tuple[Conversion, ...]:
        return tuple(hop.via for hop in self.hops if isinstance(hop.via, Conversion))


class NoNetwork(msgspec.Struct, frozen=True):
    """Nothing can be traded now, and why not."""

    sell: Amount
    reasons: tuple[Reason, ...]
    rejected: tuple[Reason, ...]


def trade(
    sources: Sequence[Source],
    conversions: Sequence[Conversion],
    sell: Amount,
    buy: str,
    gas: Mapping[int, GasPrice],
    capacity: Mapping[str, Amount] | None = None,
    charges: Mapping[str, Charge] | None = None,
    effort: Effort | None = None,
    prepare: Prepare = plain,
) -> Network | NoNetwork:
    """Sell `sell` (of a group, as `group_asset` counts it) for as much as possible of the group `buy`. Pure and deterministic.

    `capacity`: what the account can give at each place, by Asset.id; None: everywhere as much as is needed. `gas`: by chain, in
    coins of the group that is bought. `charges`: by Instrument.id, as in a split; they weigh, and change no amount. `prepare`: the
    solver, `dual.plain` or `network_fast.fast()`; both give the same answer.
    """
    graph = build(sources, conversions, sell, group_asset(buy), gas, capacity, charges or {})
    if not graph.ways or sell.units <= 0:
        text = f"no way leads from {sell} to {buy} over the sources that can be used"
        return NoNetwork(sell, (Reason(NOTHING_FITS, text),), graph.rejected)
    search = _Search(graph, sell, gas, charges or {}, effort or Effort(), prepare)
    best = search.run()
    rejected = (*graph.rejected, *search.broken)
    if best is None or best.settled.received.units <= 0:
        text = f"nothing of {sell} can be traded for {buy} so that it pays its gas"
        return NoNetwork(sell, (Reason(NOTHING_FITS, text),), rejected)
    received, worth = best.settled.received, best.worth
    bound = max(search.bound, best.value)
    return Network(
        sell,
        best.settled.hops,
        received,
        best.gas,
        received - best.gas,
        tuple(best.settled.left.values()),
        bound,
        (bound - best.value) / bound * 10_000,
        {str(place): worth[k] for k, place in enumerate(graph.places)},
        best.residual,
        search.solves,
        rejected,
    )


class _Answer(msgspec.Struct, frozen=True):
    """An exact answer; `value`: its net and what is left at marginal prices, in coins bought; `rank`: with dust at half of that."""

    value: float
    rank: float
    settled: Settled
    gas: Amount
    worth: list[float]
    residual: float


class _Branch(msgspec.Struct, frozen=True):
    """What has been decided: each source by number and each chain, in or out. `bound`: of the branch it came from."""

    bound: float
    sources: Mapping[int, bool]
    chains: Mapping[int, bool]
    start: Sequence[float]


class _Search:
    """Branch and bound over what is fixed. `bound`: of all that was not looked into, and of what was."""

    def __init__(
        self,
        graph: Graph,
        sell: Amount,
        gas: Mapping[int, GasPrice],
        charges: Mapping[str, Charge],
        effort: Effort,
        prepare: Prepare,
    ) -> None:
        self._graph, self._sell, self._gas, self._charges, self._effort = graph, sell, gas, charges, effort
        self._number = _numbers(graph)
        self._rest = _half_spot(graph)
        self.solves = 0
        self.bound = 0.0
        self.broken: list[Reason] = []
        self._best: _Answer | None = None
        self._prepare, self._gates = prepare, 0
        self._start: Sequence[float] = ()
        self._gate(None)
        if any(graph.costs):  # without costs first: its worths say what costs in one coin are in another
            flow = self._solve([OPEN] * len(self._edges.tail), None)
            self.solves, self._start = 1, flow.worth
            self._gate(flow.worth)

    def _gate(self, logs: Sequence[float] | None) -> None:
        """Lay the network out, with the gates of what has a cost at these log worths."""
        self._gated_at = logs
        self._edges = flatten(self._graph, self._rest, None if logs is None else [exp(u) for u in logs])
        self._solve: Solver = self._prepare(self._edges, len(self._graph.places), self._graph.sold)

    def _moved(self, state: Sequence[int], logs: Sequence[float]) -> bool:
        """Whether worths are so far from those of the gates that gates should be laid anew, and still may."""
        before = self._gated_at
        if before is None or self._gates >= GATES_MAX:
            return False
        heads = {way.head for way, now in zip(self._graph.ways, state, strict=False) if now == GATED}
        return any(abs(before[v] - logs[v]) > _FAR for v in heads)

    def run(self) -> _Answer | None:
        stack = [_Branch(float("inf"), {}, {}, self._start)]
        most = self._effort.solves_max
        while stack and self.solves < (most if self._best else most + FIRST_MAX):
            # Into the depth until there is an answer, from then on where most could be gained.
            place = max(range(len(stack)), key=lambda k: stack[k].bound) if self._best else -1
            stack.extend(self._look(stack.pop(place)))
        self.bound = max([self.bound, *(branch.bound for branch in stack)])
        if self._best is not None:
            for ways in paths(self._graph, self._best.worth):
                self._offer(settle(self._graph, ways, [self._graph.sold] * len(self._graph.ways), self._sell, 0.0), None)
        return self._best

    def _look(self, branch: _Branch) -> list[_Branch]:
        """Solve a branch: the branches that it leaves, the promising one last; none where it is answered or cannot be better."""
        enough = self._best.value * (1 + self._effort.gap_bps / 10_000) if self._best else 0.0
        if branch.bound <= enough:
            self.bound = max(self.bound, branch.bound)
            return []
        state = self._state(branch)
        flow = self._solve(state, branch.start or None)
        self.solves += 1
        if self._moved(state, flow.worth):
            self._gates += 1
            self._gate(flow.worth)
            return [msgspec.structs.replace(branch, start=flow.worth)]
        bound = min(branch.bound, flow.bound - self._fixed(branch))
        worth = [exp(u) for u in flow.worth]
        if bound <= enough:
            self.bound = max(self.bound, bound)
            return []
        now = msgspec.structs.replace(branch, bound=bound, start=flow.worth)
        ways = used(self._graph, flow.paid, worth)
        branches = self._undecided(now, state, flow, ways)
        if branches:
            return branches
        flow, ways = self._plain(state, flow, ways)
        unsold = flow.paid[-1] if flow.paid[-1] > 1e-9 * self._graph.sold else 0.0
        found = settle(self._graph, ways, flow.paid, self._sell, unsold)
        self.bound = max(self.bound, bound)
        if isinstance(found, Broken):  # more might go there and be better: not looked for
            self.broken.append(Reason(found.code, found.why))
            return [_decided(now, self._number[found.way], False)]
        self._offer(found, flow)
        large = used(self._graph, flow.paid, [exp(u) for u in flow.worth], _SMALL)
        if len(large) < len(ways):
            self._offer(settle(self._graph, large, flow.paid, self._sell, unsold), flow)
        for e in ways:
            if is_book(self._graph.ways[e]):
                self._offer(settle(self._graph, ways, flow.paid, self._sell, unsold, e), flow)
        return []

    def _plain(self, state: Sequence[int], flow: Flow, ways: list[int]) -> tuple[Flow, list[int]]:
        """The flow over the same ways without gates, which take a pool's gas out of what it gives on."""
        if all(state[e] != GATED for e in ways):
            return flow, ways
        found = self._solve([OPEN if now == OPEN or e in ways else OUT for e, now in enumerate(state)], flow.worth)
        self.solves += 1
        again = used(self._graph, found.paid, [exp(u) for u in found.worth])
        return (flow, ways) if cycle(self._graph, again) else (found, again)

    def _offer(self, found: Settled | Broken, flow: Flow | None) -> None:
        """Keep an exact answer if it is the best; without a flow at the worths of the best so far."""
        if isinstance(found, Broken):
            return
        worth = [exp(u) for u in flow.worth] if flow is not None else self._best.worth if self._best else []
        answer = self._answer(found, flow, worth)
        if self._best is None or answer.rank > self._best.rank:
            self._best = answer

    def _state(self, branch: _Branch) -> list[int]:
        """What is decided, and out also what no longer lies on a way from what is sold to what is bought."""
        ways = self._graph.ways
        inside = [branch.sources.get(number) for number in self._number]
        shut = [chain is not None and branch.chains.get(chain) is False for chain in self._graph.chains]
        kept = [e for e in range(len(ways)) if inside[e] is not False and not shut[e]]
        after = reached(0, [(ways[e].tail, ways[e].head) for e in kept])
        before = reached(len(self._graph.places) - 1, [(ways[e].head, ways[e].tail) for e in kept])
        found = [OUT] * len(ways)
        for e in kept:
            if ways[e].tail in after and ways[e].head in before:
                found[e] = GATED if self._graph.costs[e] > 0 and inside[e] is None else OPEN
        return [*found, OPEN]

    def _fixed(self, branch: _Branch) -> float:
        """The costs of what is decided to be in."""
        cost = {self._number[e]: self._edges.cost[e] for e in range(len(self._graph.ways))}
        batches = sum(self._graph.batches[chain] for chain, inside in branch.chains.items() if inside)
        return batches + float(sum(cost[number] for number, inside in branch.sources.items() if inside))

    def _undecided(self, now: _Branch, state: Sequence[int], flow: Flow, ways: Sequence[int]) -> list[_Branch]:
        """What has to be decided before the flow can be traded: a chain's batch, a pool that is half open, a circle."""
        graph, edges = self._graph, self._edges
        for e in ways:
            chain = graph.chains[e]
            if chain is not None and chain not in now.chains and graph.batches[chain] > 0:
                return [msgspec.structs.replace(now, chains={**now.chains, chain: inside}) for inside in (False, True)]
        torn = [e for e in ways if state[e] == GATED and flow.paid[e] < _WHOLE * edges.taken[edges.gate_first[e] + 1]]
        if torn:
            e = max(torn, key=lambda e: self._edges.cost[e])
            return [_decided(now, self._number[e], inside) for inside in (False, True)]
        circle = sorted(cycle(graph, ways), key=lambda e: -flow.paid[e] * exp(flow.worth[graph.ways[e].tail]))
        return [_decided(now, self._number[e], False) for e in circle]

    def _answer(self, found: Settled, flow: Flow | None, worth: list[float]) -> _Answer:
        buy = self._graph.places[-1]
        legs: dict[int, int] = {}
        for hop in found.hops:
            chain = chain_of(hop.via.instrument) if isinstance(hop.via, Source) and not hop.via.instrument.is_book else None
            if chain is not None and isinstance(hop.via, Source):
                legs[chain] = legs.get(chain, self._gas[chain].batch_gas) + hop.via.instrument.gas
        gas = Amount(sum(gas_up(units, self._gas[chain], buy).units for chain, units in legs.items()), buy)
        # What was left unsold on purpose counts as it did in the flow, all else at marginal prices.
        unsold, counted = (flow.paid[-1], flow.received[-1]) if flow is not None else (0.0, 0.0)
        value = (found.received - gas).units / 10**buy.decimals + counted - self._charged(found, worth)
        dust = sum(amount.units / 10**amount.asset.decimals * worth[place] for place, amount in found.left.items())
        dust -= unsold * worth[0]
        return _Answer(value + dust, value + dust / 2, found, gas, worth, flow.residual if flow is not None else 0.0)

    def _charged(self, found: Settled, worth: Sequence[float]) -> float:
        """What the charges of all hops weigh, in coins bought."""
        if not self._charges:
            return 0.0
        worths = {str(place): worth[k] for k, place in enumerate(self._graph.places)}
        total = 0.0
        for hop in found.hops:
            charge = self._charges.get(hop.name)
            if charge is not None:
                coin = worths.get(str(hop.amount_out.asset), 1.0)  # what is bought counts where it arrives
                total += hop.amount_out.units / 10**hop.amount_out.asset.decimals * coin * charge.pips / PIPS
        return total


def _decided(branch: _Branch, number: int, inside: bool) -> _Branch:
    return msgspec.structs.replace(branch, sources={**branch.sources, number: inside})


def _numbers(graph: Graph) -> list[int]:
    """The same number for both directions of one source."""
    seen: dict[int, int] = {}
    return [seen.setdefault(id(way.what), len(seen)) for way in graph.ways]


def _half_spot(graph: Graph) -> float:
    """Half of what the first coin brings: below that price nothing is sold, as in a split without a limit."""
    worth = [0.0] * len(graph.places)
    worth[-1] = 1.0
    for _ in range(HOPS_MAX):
        for way in graph.ways:
            worth[way.tail] = max(worth[way.tail], worth[way.head] / way.curve.u[0] ** 2)
    return worth[0] / 2
