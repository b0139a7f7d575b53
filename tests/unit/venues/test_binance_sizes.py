"""Sizes are read the short way or the strict one, and nobody can tell which."""

from hypothesis import given
from hypothesis import strategies as st

from agent.domain.amount import parse_units
from agent.domain.errors import NumberError
from agent.venues.ccxt_exchange.binance_wire import _units

USUAL = st.from_regex(r"[0-9]{1,25}\.[0-9]{8}", fullmatch=True)


def told(read, *arguments):
    try:
        return read(*arguments)
    except NumberError:
        return "refused"


@given(st.one_of(USUAL, USUAL.map(lambda text: text[:-1]), st.text("0123456789.-+eE٣ _", max_size=40)))
def test_the_short_way_reads_what_the_strict_one_reads(text):
    assert told(_units, text) == told(parse_units, text, 8, "size")
