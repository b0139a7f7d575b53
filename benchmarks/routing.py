"""The split: the exact answer over one book and six pools, beside percent splits on a 5 % grid over the same exact quotes."""

from agent.domain.amount import Amount, Asset, group_asset
from agent.domain.instrument import Instrument, Pool
from agent.domain.market import BookSnapshot, ChainHead, Listed, PoolReserves
from agent.domain.price import Price
from agent.market.view import Market
from agent.routing.cost import GasPrice
from agent.routing.split import Route, split
from benchmarks.measure import Result, versus

ETH, USDT = Asset("ETH", "x", 8, "ETH"), Asset("USDT", "x", 8, "USDT")
WETH, TETHER = Asset("WETH", "eip155:1", 18, "ETH", "0x01"), Asset("USDT", "eip155:1", 6, "USDT", "0x02")
POOLS, STEPS = 6, 20
QUANTITY = Amount(40 * 10**18, group_asset("ETH"))


def run() -> list[Result]:
    market = Market()
    book = Instrument("x", "ETHUSDT", ETH, USDT, 1_000, 10**6, 10**4, 5 * 10**8)
    pools = [
        Instrument("u", f"p{i}", WETH, TETHER, 3_000, pool=Pool("v2", f"0x{i + 16:040x}", "0x01", "0x02"), gas=75_000)
        for i in range(POOLS)
    ]
    market.apply(Listed("x", (book,), 0))
    market.apply(Listed("u", tuple(pools), 0))
    bids = tuple((268_380 - i, 8_000 + 37 * i % 9_000) for i in range(50))
    market.apply(BookSnapshot(book.id, 1, bids, tuple((268_381 + i, 5_000) for i in range(50)), 0))
    market.apply(ChainHead(1, 5, "0xa", "0xb", 10**9, 1, 0))
    for i, pool in enumerate(pools):
        base = (3_000 + 700 * i) * 10**18
        market.apply(PoolReserves(pool.id, base, base * (26_838 + 9 * i) // 10**13, 5, 0))
    view = market.view("ETH/USDT", 0)
    held = {one.id: Amount(10 ** (one.decimals + 6), one) for one in (ETH, WETH)}
    gas = {1: GasPrice(1, 2 * 10**9, Price(2_683, 1))}
    limit = Price(2_000, 1)

    def ours() -> object:
        return split(view, "sell", QUANTITY, held, gas, limit)

    def grid() -> list[int]:
        """Give each twentieth of the order, one after the other, to whoever pays most for the next one (greedy on a 5 % grid)."""
        shares, paid = [0] * len(view.sources), [0] * len(view.sources)
        for _ in range(STEPS):
            gains = [_out(source, shares[i] + 1) - paid[i] for i, source in enumerate(view.sources)]
            best = max(range(len(gains)), key=gains.__getitem__)
            shares[best] += 1
            paid[best] += gains[best]
        return paid

    found = ours()
    assert isinstance(found, Route)
    assert sum(piece.quote.units * 10 ** (18 - piece.quote.asset.decimals) for piece in found.pieces) >= sum(grid())
    return [versus("40 ETH over 1 book and 6 pools", ours, "greedy 5 % grid", grid, calls=50)]


def _out(source: object, twentieths: int) -> int:
    """Quote units with 18 decimals for so many twentieths of the order at one source."""
    instrument, state = source.instrument, source.state  # type: ignore[attr-defined]
    units = 40 * 10**instrument.base.decimals * twentieths // STEPS
    quote = state.swap_in(units, True).amount_out
    return quote * 10 ** (18 - instrument.quote.decimals)
