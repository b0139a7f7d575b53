"""Money: exact, never mixed, read strictly, written as text."""

import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.amount import (
    Amount,
    Asset,
    Units,
    decode_hook,
    encode_hook,
    group_asset,
    parse_amount,
    parse_units,
    plain,
    rescale_down,
    rescale_up,
)
from agent.domain.errors import NumberError

WETH = Asset("WETH", "eip155:1", 18, "ETH")
ETH = Asset("ETH", "binance", 8, "ETH")
USDT = Asset("USDT", "binance", 8, "USDT")


@given(st.integers(0, 2**256), st.integers(0, 36))
def test_plain_text_reads_back(units: int, decimals: int) -> None:
    text = plain(units, decimals)
    if len(text) <= 80:
        assert parse_units(text, decimals) == units


@pytest.mark.parametrize(
    "text",
    ["", " ", "-1", "+1", "1e5", "1e1000000", "NaN", "inf", "Infinity", "1_000", "1,5", "0x10", ".5", "5.", "1.2.3", " 1",
     "1 ", "١", "²", "1" * 81, "1.123456789", "\n1"],
)  # fmt: skip
def test_everything_but_plain_decimals_is_refused_at_once(text: str) -> None:
    began = time.perf_counter()
    with pytest.raises(NumberError):
        parse_units(text, 8)
    assert time.perf_counter() - began < 0.1


def test_trailing_zeros_are_not_decimals() -> None:
    assert parse_units("2683.80000000000", 2) == 268_380


@pytest.mark.parametrize("value", [1.0, "1", None, True])
def test_only_whole_numbers_are_money(value: object) -> None:
    with pytest.raises(TypeError):
        Amount(value, ETH)  # type: ignore[arg-type]


def test_assets_do_not_mix() -> None:
    for bad in (
        lambda: Amount(1, ETH) + Amount(1, USDT),
        lambda: Amount(1, ETH) < Amount(1, WETH),
        lambda: rescale_up(Amount(1, ETH), USDT),
    ):
        with pytest.raises(TypeError):
            bad()


@given(st.integers(0, 10**30))
def test_rescaling_names_its_rounding(units: int) -> None:
    down, up = rescale_down(Amount(units, WETH), ETH), rescale_up(Amount(units, WETH), ETH)
    assert 0 <= up.units - down.units <= 1
    assert rescale_up(down, WETH).units <= units <= rescale_up(up, WETH).units


@given(st.integers(-(2**255), 2**255))
def test_money_travels_as_text(units: int) -> None:
    amount = Amount(units, WETH)
    raw = msgspec.json.encode(amount, enc_hook=encode_hook)
    assert f'"units":"{units}"'.encode() in raw
    assert msgspec.json.decode(raw, type=Amount, dec_hook=decode_hook) == amount


@pytest.mark.parametrize("raw", [b"5", b'"5.0"', b'"1e3"', b'"--5"', b'""', b'"\xd9\xa1"'])
def test_money_is_read_from_text_alone(raw: bytes) -> None:
    with pytest.raises((NumberError, msgspec.ValidationError)):
        msgspec.json.decode(raw, type=Units, dec_hook=decode_hook)


def test_amounts_print_with_their_asset() -> None:
    assert str(parse_amount("40.50", group_asset("ETH"))) == "40.5 ETH"
    assert str(Amount(-5, USDT)) == "-0.00000005 USDT@binance"
