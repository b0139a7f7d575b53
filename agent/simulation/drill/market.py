"""What is traded in a drill: ether against dollars at two exchanges and in one pool on a chain."""

from agent.domain.amount import Amount, Asset, group_asset, parse_amount
from agent.domain.instrument import Instrument, Pool, Side
from agent.domain.intent import Intent

MAIN = "main"
CEX, ALT, AMM = "cex", "alt", "amm"  # two exchanges, and the pool's venue
EXCHANGES = (CEX, ALT)
CHAIN_ID = 31_337
HOME = f"eip155:{CHAIN_ID}"
WALLET = "0x" + "11" * 20
PERMIT2 = "0x" + "22" * 20
ROUTER = "0x" + "dd" * 20
ANCHOR = "0x" + "ee" * 20
ETH_WHOLE, USDT_WHOLE, COIN_WHOLE = 60, 250_000, 5  # what the account has at each place
LOT, TICK, SCALE = 10**4, 10**6, 10**8  # base units, quote units per whole coin, base units per whole coin
PRICE_TICKS = 268_300

ETH = group_asset("ETH")
WETH = Asset("WETH", HOME, 18, "ETH", "0x" + "aa" * 20)
USDT = Asset("USDT", HOME, 6, "USDT", "0x" + "bb" * 20)
COIN = Asset("ETH", HOME, 18, "ETH")


def base_of(venue: str) -> Asset:
    return Asset("ETH", venue, 8, "ETH")


def quote_of(venue: str) -> Asset:
    return Asset("USDT", venue, 8, "USDT")


def book_of(venue: str, lot: int = LOT) -> Instrument:
    return Instrument(venue, "ETH/USDT", base_of(venue), quote_of(venue), 1_000, TICK, lot, 5 * SCALE)


BOOK = book_of(CEX)
POOL = Instrument(AMM, "v2", WETH, USDT, 500, pool=Pool("v2", "0x" + "cc" * 20, WETH.address, USDT.address), gas=120_000)


def base_amount(venue: str, lots: int) -> Amount:
    return Amount(lots * LOT, base_of(venue))


def quote_amount(venue: str, ticks: int, lots: int) -> Amount:
    """Exact: a tick and a lot are chosen so that their product is whole."""
    return Amount(ticks * TICK * lots * LOT // SCALE, quote_of(venue))


def wish(name: str, quantity: str, side: Side, deadline_ns: int, *, slices: int = 1, interval_ns: int = 0, rests: bool = False,
         slippage_bps: int = 100) -> Intent:  # fmt: skip
    """A parent order over the whole market."""
    amount = parse_amount(quantity, ETH)
    return Intent(name, MAIN, name, side, amount, "USDT", slippage_bps, deadline_ns, slices, interval_ns, rests)
