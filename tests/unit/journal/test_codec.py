"""Every kind of event reads back as it was written, and what could not is refused before it is recorded."""

import typing

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain import events
from agent.domain.amount import Amount, Asset, Units
from agent.domain.errors import JournalError
from agent.domain.price import Price
from agent.journal import codec
from agent.journal.codec import GENESIS, SCHEMA_VERSION, Row, check_version, decode, encode, rows_of, walk

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
UNITS = st.integers(-(10**60), 10**60).map(Units)
ASSETS = st.builds(Asset, TEXT, TEXT, st.integers(0, 36), TEXT, TEXT)
AMOUNTS = st.builds(Amount, UNITS, ASSETS)
PRICES = st.builds(Price, st.integers(1, 10**60), st.integers(1, 10**60))
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
COUNTS = st.integers(-(1 << 63), (1 << 63) - 1)

for kind, strategy in {Amount: AMOUNTS, Asset: ASSETS, Price: PRICES, str: TEXT, float: NUMBERS, int: COUNTS}.items():
    st.register_type_strategy(kind, strategy)
KINDS = typing.get_args(events.Event)


def of_type(kind: type) -> st.SearchStrategy:
    """Values of a struct from its annotations, all the way down."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind not in (Amount, Asset, Price):
        return st.builds(kind, **{field.name: of_type(field.type) for field in msgspec.structs.fields(kind)})
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple and arguments[-1] is Ellipsis:
        return st.lists(of_type(arguments[0]), max_size=2).map(tuple)
    if origin is tuple:
        return st.tuples(*map(of_type, arguments))
    if origin is not typing.Literal and arguments:
        return st.one_of(*map(of_type, arguments))
    return st.from_type(kind)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_event_reads_back(kind: type) -> None:
    @given(of_type(kind))
    def reads_back(event: events.Event) -> None:
        body = encode(event)
        record = decode(Row(1, 5, body, "00"))
        assert record.event == event
        assert type(record.event) is kind
        assert encode(record.event) == body

    reads_back()


def test_money_travels_as_text() -> None:
    asset = Asset("ETH", "binance", 18, "ETH")
    body = encode(events.BalanceAdopted("main", "binance", Amount(2**53 + 1, asset), "opening"))
    assert b'"units":"9007199254740993"' in body


def routed(share: float) -> events.Routed:
    eth = Amount(1, Asset("ETH", "*", 18, "ETH"))
    piece = events.RoutePiece("binance:ETHUSDT", eth, eth, share, 1.0, 1.0, 0, eth, "")
    return events.Routed("i", 0, eth, (piece,), eth, (), ())


@pytest.mark.parametrize(
    "event",
    [
        routed(float("nan")),
        routed(float("inf")),
        events.EngineStopped("\ud800"),
        events.EngineStopped("x" * (codec.BODY_MAX + 1)),
        events.BalanceAdopted("main", "binance", Amount(10**80, Asset("ETH", "binance", 18)), "more digits than the reader takes"),
    ],
    ids=["nan", "infinity", "surrogate", "too large", "too long a number"],
)
def test_what_could_not_be_read_back_is_refused(event: events.Event) -> None:
    with pytest.raises(JournalError, match="nothing was recorded"):
        encode(event)


@pytest.mark.parametrize("at_ns", [-1, 1 << 63])
def test_a_time_that_no_store_holds_is_refused(at_ns: int) -> None:
    with pytest.raises(JournalError, match="clock"):
        rows_of((0, GENESIS), at_ns, [events.EngineStopped("x")])


@pytest.mark.parametrize("body", [b'{"type":"FromTheFuture"}', b"[]", b"", b'{"type":"EngineStopped","reason":1}', b"\xff"])
def test_an_event_of_no_known_kind_names_its_record(body: bytes) -> None:
    with pytest.raises(JournalError, match="journal record 7 cannot be understood"):
        decode(Row(7, 0, body, "00"))


def test_versions() -> None:
    check_version(SCHEMA_VERSION)
    with pytest.raises(JournalError, match="start a newer isthmus"):
        check_version(SCHEMA_VERSION + 1)
    with pytest.raises(JournalError, match="not a journal"):
        check_version(0)


def test_the_chain_is_pinned() -> None:
    """The format of version 1: if this fails, journals on disk no longer verify."""
    assert GENESIS == "30dd408bb3639cf181cf882a8fc55989c3906769cc0bae3080e7c6cd55224199"
    (row,) = rows_of((0, GENESIS), 12, [events.EngineStopped("done")])
    assert row.body == b'{"type":"EngineStopped","reason":"done"}'
    assert row.hash == "3f8e58dc094e887e41d0e97eb2908bf698989529d5297f5ef3a99fb633598c1c"
    assert list(walk([row])) == [row]
