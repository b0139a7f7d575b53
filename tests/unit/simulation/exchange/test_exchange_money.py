"""Money on the sandbox exchange: whatever is traded, cancelled or refused, every unit stays accounted for."""

from hypothesis import given
from hypothesis import strategies as st

from agent.simulation.exchange.accounts import FEES, HOUSE, Accounts
from agent.simulation.exchange.filters import NewOrder, Refused, SymbolRules, units
from agent.simulation.exchange.liquidity import Liquidity, Quote, Take
from agent.simulation.exchange.matching import BUY, SELL
from agent.simulation.exchange.venue import Report, Venue

RULES = SymbolRules(symbol="ETHUSDT", base="ETH", quote="USDT", tick_units=10**6, lot_units=10**4, notional_units_min=5 * 10**8)
DEPOSITS = {"ETH": units("3"), "USDT": units("9000")}

ORDERS = st.tuples(
    st.sampled_from(["alice", "bob"]),
    st.integers(BUY, SELL),
    st.sampled_from(["LIMIT", "LIMIT", "LIMIT_MAKER", "MARKET", "QUOTE"]),
    st.sampled_from(["GTC", "IOC", "FOK"]),
    st.integers(268_000, 268_010),
    st.integers(20, 20_000),
    st.sampled_from(["NONE", "EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH"]),
)
QUOTES = st.builds(Quote, st.integers(BUY, SELL), st.integers(268_000, 268_010), st.integers(0, 20_000))
TAKES = st.builds(Take, st.integers(BUY, SELL), st.integers(268_000, 268_010), st.integers(1, 20_000))
STEPS = st.lists(ORDERS | QUOTES | TAKES | st.integers(1, 60), max_size=40)


def make_venue() -> Venue:
    venue = Venue([RULES], Accounts())
    for account in ("alice", "bob"):
        for asset, amount in DEPOSITS.items():
            venue.move(account, asset, amount, 0)
    return venue


def place(venue: Venue, step: tuple, now_ms: int) -> None:
    account, side, kind, tif, price, lots, prevention = step
    is_market = kind in ("MARKET", "QUOTE")
    request = NewOrder(
        symbol="ETHUSDT", side=side, kind="MARKET" if is_market else kind, prevention=prevention,
        time_in_force=tif if kind == "LIMIT" else "GTC", price_ticks=0 if is_market else price,
        size_lots=0 if kind == "QUOTE" else lots, quote_units=RULES.quote_units(price * lots) if kind == "QUOTE" else 0,
        client_id=None, reply_kind="FULL",
    )  # fmt: skip
    venue.place(account, request, now_ms)


@given(STEPS)
def test_money_is_conserved_and_never_overdrawn(steps: list) -> None:
    venue = make_venue()
    liquidity = Liquidity(venue, "ETHUSDT")
    reports: list[Report] = []
    codes: set[int] = set()
    venue.on_report = reports.append
    for now_ms, step in enumerate(steps):
        try:
            if isinstance(step, int):
                known = list(venue._orders.values())
                if known:
                    name, order = known[step % len(known)]
                    venue.cancel(order.account, name, order, now_ms, "c")
            elif isinstance(step, tuple):
                place(venue, step, now_ms)
            else:
                liquidity.apply([step], now_ms)
        except Refused as refusal:
            codes.add(refusal.code)
        check_books(venue)
    check_reports(venue, reports)
    assert codes <= {-2010, -2011, -1013}


def check_books(venue: Venue) -> None:
    for asset, amount in DEPOSITS.items():
        assert venue.accounts.total(asset) == 2 * amount, "the sum over all accounts, house and fees is what was deposited"
    for account in ("alice", "bob"):
        locked = {"ETH": 0, "USDT": 0}
        for _, order in venue.open_orders(account):
            if order.side == SELL:
                locked["ETH"] += RULES.base_units(order.open_lots)
            else:
                locked["USDT"] += RULES.quote_units(order.open_lots * order.price_ticks)
        for asset, held in locked.items():
            balance = venue.accounts.balance(account, asset)
            assert balance.locked == held, "locked is exactly what the open orders hold"
            assert balance.free >= 0


def check_reports(venue: Venue, reports: list[Report]) -> None:
    """Fill by fill: cumulative figures grow by each fill and end where the order ended; the fees are those in the fee account."""
    filled: dict[int, int] = {}
    fees = {"ETH": 0, "USDT": 0}
    for report in reports:
        order_id = report.order.id
        if report.fill is not None:
            filled[order_id] = filled.get(order_id, 0) + report.fill.size_lots
            fees[report.fill.fee_asset] += report.fill.fee_units
        assert report.filled_lots == filled.get(order_id, 0)
        assert (report.status == "FILLED") == (report.filled_lots == report.order.size_lots > 0)
    assert all(order.filled_lots == filled.get(order.id, 0) for _, order in venue._orders.values())
    assert all(venue.accounts.balance(FEES, asset).free == amount for asset, amount in fees.items())


def test_the_fee_is_taken_from_what_is_received_and_rounded_down() -> None:
    venue = make_venue()
    place(venue, ("alice", SELL, "LIMIT", "GTC", 268_001, 21, "NONE"), 0)
    place(venue, ("bob", BUY, "LIMIT", "GTC", 268_003, 21, "NONE"), 0)
    ether, dollars = units("0.0021"), units("5.628021")
    assert venue.accounts.balance("bob", "ETH").free == DEPOSITS["ETH"] + ether - ether // 1000
    assert venue.accounts.balance("bob", "USDT").free == DEPOSITS["USDT"] - dollars
    assert dollars % 1000, "the seller's fee has a remainder, which is hers"
    assert venue.accounts.balance("alice", "USDT").free == DEPOSITS["USDT"] + dollars - dollars // 1000
    assert venue.accounts.balance(FEES, "USDT").free == dollars // 1000


def test_the_house_pays_no_fee_and_holds_no_reservation() -> None:
    venue = make_venue()
    Liquidity(venue, "ETHUSDT").apply([Quote(SELL, 268_000, 100_000)], 0)
    place(venue, ("alice", BUY, "MARKET", "GTC", 0, 10_000, "NONE"), 1)
    assert venue.accounts.balance(HOUSE, "ETH").free == -units("1")
    assert venue.accounts.balance(HOUSE, "ETH").locked == 0
    assert venue.accounts.balance(HOUSE, "USDT").free == units("2680")


def test_a_client_keeps_its_place_behind_the_house() -> None:
    venue = make_venue()
    liquidity = Liquidity(venue, "ETHUSDT")
    liquidity.apply([Quote(SELL, 268_000, 100)], 0)
    place(venue, ("alice", SELL, "LIMIT", "GTC", 268_000, 50, "NONE"), 0)
    liquidity.apply([Quote(SELL, 268_000, 150), Quote(SELL, 268_000, 120), Take(BUY, 268_000, 110)], 1)
    (_, order), *_ = venue.open_orders("alice")
    assert order.filled_lots == 10, "100 lots of the house were there before, what it added came behind"
    assert venue.markets["ETHUSDT"].book.lots_at(SELL, 268_000) == 40 + 120


def test_a_key_never_prints_its_secret() -> None:
    accounts = Accounts(key_seed="s")
    key = accounts.add_key("alice")
    assert key.secret not in repr(key)
    assert Accounts(key_seed="s").add_key("alice") == key
    assert Accounts().add_key("alice") != key
