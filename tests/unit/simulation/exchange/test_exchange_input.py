"""Whatever text a client sends, the exchange answers or refuses: no other exception, no stall, and the money stays where it is."""

import contextlib
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.simulation.exchange.access import Limits, parse_params, receive_window_ms, verify
from agent.simulation.exchange.accounts import Accounts
from agent.simulation.exchange.endpoints import REST, weight
from agent.simulation.exchange.faults import Faults
from agent.simulation.exchange.filters import Refused, SymbolRules, units
from agent.simulation.exchange.matching import SELL
from agent.simulation.exchange.streams import Hub
from agent.simulation.exchange.venue import Venue

NAMES = (  # noqa: SIM905 - readable this way
    "symbol side type timeInForce quantity price quoteOrderQty newClientOrderId orderId origClientOrderId cancelReplaceMode limit "
    "cancelOrderId cancelOrigClientOrderId cancelNewClientOrderId fromId startTime endTime interval symbols coin amount address "
    "network selfTradePreventionMode newOrderRespType omitZeroBalances recvWindow timestamp signature"
).split()
GOOD = {
    "symbol": ["ETHUSDT"], "side": ["BUY", "SELL"], "type": ["LIMIT", "MARKET", "LIMIT_MAKER"], "quantity": ["0.01", "2"],
    "timeInForce": ["GTC", "IOC", "FOK"], "price": ["2600", "2700.01"], "orderId": ["1", "5"], "interval": ["1m"],
    "cancelReplaceMode": ["STOP_ON_FAILURE", "ALLOW_FAILURE"], "coin": ["ETH", "USDT"], "amount": ["0.5"], "address": ["0x1"],
}  # fmt: skip
EVIL = [
    "",
    "1e1000000",
    "NaN",
    "-1",
    "0",
    "9" * 400,
    "1.",
    ".5",
    "٣",
    "\x00",
    "[[",
    '["ETHUSDT"]',
    "ethusdt",
    "1_0",
    " 1",
    "+1",
    "0x1",
]
VALUES = st.sampled_from(EVIL) | st.text(max_size=8)


@st.composite
def requests(draw: st.DrawFn) -> dict[str, str]:
    params = {name: draw(st.sampled_from(values)) for name, values in GOOD.items() if draw(st.booleans())}
    for name in draw(st.lists(st.sampled_from(NAMES), max_size=4)):
        params[name] = draw(VALUES)
    return params


@given(st.lists(st.tuples(st.sampled_from(sorted(REST)), requests()), max_size=15))
def test_every_endpoint_answers_or_refuses(calls: list) -> None:
    rules = SymbolRules(symbol="ETHUSDT", base="ETH", quote="USDT", tick_units=10**6, lot_units=10**4, notional_units_min=5 * 10**8)
    venue = Venue([rules], Accounts())
    venue.accounts.add_key("alice")
    venue.move("alice", "ETH", units("5"), 0)
    venue.move("alice", "USDT", units("9000"), 0)
    venue.house_place("ETHUSDT", SELL, 270_000, 10_000, 0)
    for now_ms, (name, params) in enumerate(calls):
        endpoint = REST[name]
        assert weight(endpoint, params) > 0
        withdrawn = sum(entry.units for entry in venue.accounts.transfers if entry.asset == "ETH")
        try:
            answer = endpoint.handler(venue, "alice", params, now_ms)
        except Refused as refusal:
            json.dumps(refusal.payload())
        else:
            msgspec.json.encode(answer)
        withdrawn = sum(entry.units for entry in venue.accounts.transfers if entry.asset == "ETH")
        assert venue.accounts.total("ETH") == withdrawn
        for balance in venue.accounts.assets("alice").values():
            assert balance.free >= 0
            assert balance.locked >= 0


@given(st.text(max_size=60), st.text(max_size=60), requests())
def test_access_refuses_what_it_cannot_read(query: str, body: str, params: dict[str, str]) -> None:
    key = Accounts().add_key("alice")
    for action in (
        lambda: parse_params(query, body),
        lambda: receive_window_ms(params),
        lambda: verify(key, query, params, 1_700_000_000_000),
    ):
        with contextlib.suppress(Refused):
            action()


def test_counters_start_anew_with_each_window() -> None:
    limits = Limits(is_enforced=True)
    assert [limits.use(5000, now) for now in (0, 60_000)] == [5000, 5000]
    with pytest.raises(Refused) as caught:
        limits.use(5000, 61_000)
    assert (caught.value.code, caught.value.http_status, caught.value.retry_after_s) == (-1003, 429, 59)
    assert limits.headers(None, 130_000)["X-MBX-USED-WEIGHT-1M"] == "0"


def test_a_stream_nobody_hears_costs_nothing() -> None:
    hub = Hub(Faults())
    assert not hub.wants("ethusdt@trade")
    hub.publish("ethusdt@trade", object())  # not even encoded
    assert hub.listeners() == {}


@pytest.mark.parametrize("text", ["1", "1.5", "0.00000001", "20.500000000000"])
def test_units_read_plain_decimals(text: str) -> None:
    assert units(text) == round(float(text) * 1e8)


def test_a_symbol_needs_a_tick_and_lot_that_make_whole_units() -> None:
    with pytest.raises(ValueError, match="choose coarser ones"):
        SymbolRules(symbol="X", base="A", quote="B", tick_units=1, lot_units=1, notional_units_min=1)
