"""The trusted picture of a market: which sources can be traded now, what each holds, and the middle price that they agree on.

`Market` owns the latest facts of every venue and chain. `View` is a frozen picture of one market at one time; everything downstream
(routing, execution, risk) decides from views alone.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from agent.domain.errors import LiquidityError
from agent.domain.instrument import Instrument
from agent.domain.market import (
    BookDiff,
    BookSnapshot,
    ChainHead,
    Listed,
    MarketFact,
    PoolRanges,
    PoolReserves,
    PoolsCurrent,
    TradePrint,
)
from agent.domain.plan import Reason
from agent.domain.price import Price, bps_between, rounded, ticks_price
from agent.liquidity.concentrated import Concentrated, checked
from agent.liquidity.constant_product import ConstantProduct
from agent.liquidity.depth import Depth
from agent.liquidity.stable import StableSwap, spot
from agent.market.bars import Bars
from agent.market.book import Book
from agent.market.quality import BAD_POOL, NO_POOL, QualityLimits, book_trouble, outlier_trouble, pool_trouble

DEPTH = 50  # levels a side that a view shows
NO_SIDE = "NO_SIDE"

SURELY = 0.5e-4  # of the distance in bps that makes an outlier: half of it is no matter of rounding

_Q192 = 1 << 192
_FOREVER_NS = 1 << 64
_CHAIN = "eip155:"

PoolLiquidity = ConstantProduct | Concentrated | StableSwap
Liquidity = Depth | PoolLiquidity


class Source(msgspec.Struct, frozen=True):
    """One instrument that can be trusted now. `block` is 0 off chain; `rough` is the middle as a float, to sort by."""

    instrument: Instrument
    state: Liquidity
    mid: Price
    at_ns: int
    block: int = 0
    rough: float = 0.0

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "rough", self.mid.num / self.mid.den)


class View(msgspec.Struct, frozen=True):
    """One market at one time. `mid`: the median of the trusted middles (of books alone, where there are any), to 18 decimals."""

    market: str
    at_ns: int
    mid: Price | None
    sources: tuple[Source, ...]
    untrusted: tuple[Reason, ...]
    heads: Mapping[int, ChainHead]


class _PoolFact(msgspec.Struct, frozen=True):
    """What a pool looked like at `block`; `state` None: its numbers contradicted each other, for the reason in `trouble`."""

    state: ConstantProduct | Concentrated | None
    at_ns: int
    block: int
    trouble: str = ""


class Market:
    """Owns the latest facts. Facts about instruments that no venue has listed are ignored."""

    def __init__(self, limits: QualityLimits | None = None, depth: int = DEPTH) -> None:
        self._limits = limits or QualityLimits()
        self._depth = depth
        self._instruments: dict[str, Instrument] = {}
        self._markets: dict[str, list[Instrument]] = {}  # the same by market, in the order of the venues' lists
        self._lots: dict[str, tuple[tuple[int, int], ...]] = {}  # of its books
        self._sources: dict[str, Source | Reason] = {}  # what instruments hold, as long as no fact about them comes
        self._books: dict[str, Book] = {}
        self._pools: dict[str, _PoolFact] = {}
        self._current: dict[str, int] = {}  # venue -> block as of which its pools are known
        self._heads: dict[int, ChainHead] = {}
        self._trades: dict[str, TradePrint] = {}
        self._bars: dict[str, Bars] = {}
        self._chains: dict[str, int | None] = {}  # of pools
        self._views: dict[str, View] = {}  # as of now, until the next fact
        self._pooled: dict[str, tuple[int, int, dict[str, Source | Reason]]] = {}  # what pools hold, from and until when

    def apply(self, fact: MarketFact) -> None:
        """Take a fact in the order received. Never raises: a fact that makes no sense makes its source untrusted."""
        self._views.clear()
        if not isinstance(fact, BookDiff | BookSnapshot | TradePrint):
            self._pooled.clear()
        match fact:
            case BookDiff() | BookSnapshot():
                book = self._books.get(fact.instrument)
                if book:
                    book.apply(fact)
                    self._sources.pop(fact.instrument, None)
            case TradePrint():
                found = self._instruments.get(fact.instrument)
                if found:
                    self._trades[fact.instrument] = fact
                    self.bars(found.market).add_trade(found, fact)
            case PoolReserves() | PoolRanges():
                found = self._instruments.get(fact.instrument)
                if found and found.pool:
                    self._pools[fact.instrument] = _pool_fact(found, fact)
                    self._sources.pop(fact.instrument, None)
            case PoolsCurrent():
                self._current[fact.venue] = fact.block
            case ChainHead():
                self._heads[fact.chain_id] = fact
            case Listed():
                self._list(fact)

    def instrument(self, name: str) -> Instrument | None:
        return self._instruments.get(name)

    def instruments(self) -> Sequence[Instrument]:
        """Everything that is listed now, in the order of its venue's listing."""
        return tuple(self._instruments.values())

    def listed(self, market: str) -> Sequence[Instrument]:
        """Those of them that belong to a market (`ETH/USDT`)."""
        return self._markets.get(market, ())

    def lots(self, market: str) -> Sequence[tuple[int, int]]:
        """(base units of a lot, decimals of the base) of its books, each once."""
        return self._lots.get(market, ())

    def heads(self) -> Mapping[int, ChainHead]:
        """The newest head of each chain, by chain id."""
        return dict(self._heads)

    def book(self, name: str) -> Book | None:
        return self._books.get(name)

    def last_trade(self, name: str) -> TradePrint | None:
        return self._trades.get(name)

    def markets(self) -> Sequence[str]:
        """Those of which something is listed."""
        return tuple(self._markets)

    def bars(self, market: str) -> Bars:
        """What the market did, second by second, as far as `sample` was called."""
        found = self._bars.get(market)
        if found is None:
            found = self._bars[market] = Bars()
        return found

    def sample(self, market: str, now_ns: int) -> None:
        """Note where the market stands now; nothing without a trusted price."""
        view = self.view(market, now_ns)
        if view.mid is not None:
            bid, ask = _tightest(view.sources)
            self.bars(market).sample(view.mid.num / view.mid.den, bid, ask, now_ns)

    def view(self, market: str, now_ns: int) -> View:
        """The picture of `market` (`ETH/USDT`) at `now_ns`."""
        known = self._views.get(market)
        if known is None or known.at_ns != now_ns:
            known = self._views[market] = self._view(market, now_ns)
        return known

    def _view(self, market: str, now_ns: int) -> View:
        found: list[Source] = []
        untrusted: list[Reason] = []
        pools = self._pool_sources(market, now_ns)
        for instrument in self._markets.get(market, ()):
            answer = self._book_source(instrument, now_ns) if instrument.pool is None else pools[instrument.id]
            if isinstance(answer, Source):
                found.append(answer)
            else:
                untrusted.append(answer)
        trusted: list[Source] = []
        for source, reason in zip(found, _outliers(found, self._limits), strict=True):
            if reason:
                untrusted.append(reason)
            else:
                trusted.append(source)
        return View(market, now_ns, middle(trusted), tuple(trusted), tuple(untrusted), self.heads())

    def _list(self, fact: Listed) -> None:
        """A venue's list replaces what it listed before; books and pools of what stays unchanged are kept."""
        keep = {instrument.id for instrument in fact.instruments}
        for name in [name for name, old in self._instruments.items() if old.venue == fact.venue and name not in keep]:
            self._forget(name)
        for instrument in fact.instruments:
            if self._instruments.get(instrument.id, instrument) != instrument:
                self._forget(instrument.id)  # new ticks, lots or fee: what is known was counted by the old rules
            self._instruments[instrument.id] = instrument
            if instrument.is_book:
                self._books.setdefault(instrument.id, Book())
        self._markets.clear()
        self._chains = {name: chain_of(one) for name, one in self._instruments.items()}
        for instrument in self._instruments.values():
            self._markets.setdefault(instrument.market, []).append(instrument)
        lots = {name: ((one.lot_units, one.base.decimals) for one in found if one.is_book) for name, found in self._markets.items()}
        self._lots = {name: tuple(dict.fromkeys(found)) for name, found in lots.items()}

    def _forget(self, name: str) -> None:
        del self._instruments[name]
        self._books.pop(name, None)
        self._pools.pop(name, None)
        self._trades.pop(name, None)
        self._sources.pop(name, None)

    def _book_source(self, instrument: Instrument, now_ns: int) -> Source | Reason:
        name = instrument.id
        book = self._books[name]
        trouble = book_trouble(name, book, now_ns, self._limits)
        if trouble:
            return trouble
        known = self._sources.get(name)
        if known is None:
            known = self._sources[name] = _book_source(instrument, book, self._depth)
        return known

    def _pool_sources(self, market: str, now_ns: int) -> Mapping[str, Source | Reason]:
        """What the pools of a market hold, by instrument id. Books change more often: until then nothing is looked at twice."""
        since_ns, until_ns, known = self._pooled.get(market, (0, -1, {}))
        if not since_ns <= now_ns <= until_ns:
            known = {one.id: self._pool_source(one, now_ns) for one in self._markets.get(market, ()) if one.pool}
            ends_ns = [head.at_ns + self._limits.head_age_ns_max for head in self._heads.values()]
            until_ns = min((end_ns for end_ns in ends_ns if end_ns >= now_ns), default=_FOREVER_NS)
            self._pooled[market] = now_ns, until_ns, known
        return known

    def _pool_source(self, instrument: Instrument, now_ns: int) -> Source | Reason:
        name = instrument.id
        fact = self._pools.get(name)
        if fact is None:
            return Reason(NO_POOL, f"{name}: its pool has not been read yet")
        if fact.state is None:
            return Reason(BAD_POOL, f"{name}: {fact.trouble}")
        chain_id = self._chains[name]
        head = self._heads.get(chain_id) if chain_id is not None else None
        block = max(fact.block, self._current.get(instrument.venue, 0))
        trouble = pool_trouble(name, block, head, now_ns, self._limits)
        if trouble:
            return trouble
        known = self._sources.get(name)
        if not isinstance(known, Source):
            known = self._sources[name] = Source(instrument, fact.state, pool_mid(instrument, fact.state), fact.at_ns, block)
        elif known.block != block:  # the same state, vouched for by a newer block
            known = self._sources[name] = Source(instrument, known.state, known.mid, known.at_ns, block)
        return known


def chain_of(instrument: Instrument) -> int | None:
    """The chain id of a pool, from where its base lives; None off chain."""
    home = instrument.base.home
    number = home.removeprefix(_CHAIN)
    return int(number) if home.startswith(_CHAIN) and number.isdigit() else None


def pool_mid(instrument: Instrument, state: PoolLiquidity) -> Price:
    """The price at which a pool would trade nothing, before its fee: whole quote coins per whole base coin, exact."""
    if isinstance(state, ConstantProduct):
        paid_1, paid_0 = state.reserve_1, state.reserve_0
    elif isinstance(state, StableSwap):
        paid_1, paid_0 = spot(state)
    else:
        paid_1, paid_0 = state.sqrt_price_x96**2, _Q192
    quote, base = (paid_1, paid_0) if instrument.base_is_token0 else (paid_0, paid_1)
    return Price(quote * 10**instrument.base.decimals, base * 10**instrument.quote.decimals)


def middle(sources: Sequence[Source]) -> Price | None:
    """The median of the sources' middles, of books alone where there are any, to 18 decimals."""
    counted = [source for source in sources if source.instrument.is_book] or sources
    return rounded(_median([source.mid for source in sorted(counted, key=_rank)])) if counted else None


def _tightest(sources: Sequence[Source]) -> tuple[float, float]:
    """Best bid and ask of the book whose spread is smallest, in quote coins; zeros without a book."""
    best = 0.0, 0.0
    for source in sources:
        if isinstance(source.state, Depth) and source.state.bids and source.state.asks:
            scale = source.state.tick_units / 10.0**source.instrument.quote.decimals
            bid, ask = source.state.bids[0][0] * scale, source.state.asks[0][0] * scale
            if not best[1] or ask - bid < best[1] - best[0]:
                best = bid, ask
    return best


def _pool_fact(found: Instrument, fact: PoolReserves | PoolRanges) -> _PoolFact:
    assert found.pool is not None, "only pools have pool facts"
    if isinstance(fact, PoolReserves):
        empty = min(fact.reserve0, fact.reserve1) <= 0
        pair = None if empty else ConstantProduct(fact.reserve0, fact.reserve1, found.fee_pips)
        return _PoolFact(pair, fact.at_ns, fact.block, "the pool is empty" if empty else "")
    pool = Concentrated(
        fact.sqrt_price_x96,
        fact.tick,
        fact.liquidity,
        found.fee_pips,
        found.pool.tick_spacing,
        fact.ticks,
        fact.known_lower,
        fact.known_upper,
    )
    if not pool.liquidity and not pool.ticks:
        return _PoolFact(None, fact.at_ns, fact.block, "the pool is empty")
    try:
        return _PoolFact(checked(pool), fact.at_ns, fact.block)
    except LiquidityError as error:
        return _PoolFact(None, fact.at_ns, fact.block, str(error))


def _book_source(instrument: Instrument, book: Book, depth: int) -> Source | Reason:
    bids, asks = book.levels(depth)
    if not bids or not asks:
        return Reason(NO_SIDE, f"{instrument.id}: nobody {'offers' if bids else 'bids'} there")
    middle = ticks_price(bids[0][0] + asks[0][0], instrument.tick_units, instrument.quote.decimals)
    shown = Depth(bids, asks, instrument.tick_units, instrument.lot_units, instrument.base.decimals, instrument.fee_pips)
    return Source(instrument, shown, Price(middle.num, 2 * middle.den), book.at_ns)


def _outliers(found: Sequence[Source], limits: QualityLimits) -> Iterator[Reason | None]:
    """For each source why it lies off the median of all *other* sources, or None. A single source has nobody to disagree with.

    Of two middle values the nearer counts: halfway between a right price and a wrong one lies no price at all. Who is well within
    the limit of all others needs no closer look.
    """
    rough = [source.rough for source in found]
    if not rough or max(rough) - min(rough) < min(rough) * limits.outlier_bps_max * SURELY:
        yield from [None] * len(found)
        return
    order = [source.mid for source in sorted(found, key=_rank)]
    for source in found:
        others = list(order)
        del others[bisect_left(others, source.mid)]
        if others:
            middle = others[(len(others) - 1) // 2], others[len(others) // 2]
            median = min(middle, key=lambda one: abs(bps_between(one, source.mid)))
            yield outlier_trouble(source.instrument.id, source.mid, median, limits)
        else:
            yield None


def _rank(source: Source) -> tuple[float, Price]:
    """Sorts as the middle itself, and sooner: only what a float cannot tell apart is compared exactly."""
    return source.rough, source.mid


def _median(rising: Sequence[Price]) -> Price:
    """The middle one, or exactly halfway between the middle two."""
    low, high = rising[(len(rising) - 1) // 2], rising[len(rising) // 2]
    return low if low == high else Price(low.num * high.den + high.num * low.den, 2 * low.den * high.den)
