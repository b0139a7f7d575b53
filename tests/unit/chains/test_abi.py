"""Calls and refusals in bytes, held against known encodings."""

import pytest
from eth_abi.abi import encode
from hypothesis import given
from hypothesis import strategies as st

from agent.chains import abi
from agent.domain.errors import ChainError

OWNER, OTHER = "0x" + "11" * 20, "0x" + "22" * 20


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (abi.balance_of(OWNER), "70a08231"),
        (abi.allowance(OWNER, OTHER), "dd62ed3e"),
        (abi.approve(OTHER, 5), "095ea7b3"),
        (abi.decimals(), "313ce567"),
        (abi.get_reserves(), "0902f1ac"),
        (abi.v3_slot0(), "3850c7bd"),
        (abi.v3_liquidity(), "1a686502"),
        (abi.v3_bitmap(-1), "5339c296"),
        (abi.v3_tick(-60), "f30dba93"),
        (abi.aggregate3([(OWNER, b"\x01")]), "82ad56cb"),
        (abi.eth_balance(OWNER), "4d2301cc"),
        (abi.get_pool(OWNER, OTHER, 500), "1698ee82"),
        (abi.get_pair(OWNER, OTHER), "e6a43905"),
        (abi.permit2_allowance(OWNER, OTHER, OWNER), "927da105"),
    ],
)
def test_the_selectors_are_the_contracts(data: bytes, expected: str) -> None:
    assert data[:4].hex() == expected


def test_arguments_follow_the_selector() -> None:
    assert abi.approve(OTHER, 7)[4:] == bytes(12) + b"\x22" * 20 + (7).to_bytes(32, "big")
    assert abi.v3_bitmap(-1)[4:] == b"\xff" * 32


def test_a_v4_pools_name_is_the_hash_of_its_key() -> None:
    # ETH/USDC 500 pips on the public chain
    usdc, native = "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48", "0x" + "00" * 20
    expected = "0x21c67e77068de97969ba93d4aab21826d33ca12bb9f565d8496e8fda8a82ca27"
    assert abi.v4_pool_id(native, usdc, 500, 10, native) == expected


def test_the_answers_of_a_multicall_come_back_in_order() -> None:
    data = encode(["(bool,bytes)[]"], [[(True, b"\x01"), (False, b"")]])
    assert abi.aggregate3_results(data) == [(True, b"\x01"), (False, b"")]


def test_an_answer_that_does_not_fit_names_who_gave_it() -> None:
    with pytest.raises(ChainError, match="the token X"):
        abi.decoded(["uint256"], b"\x01", "the token X")


@given(st.integers(-(2**255), 2**255 - 1))
def test_signed_words(value: int) -> None:
    assert abi.signed(value % 2**256) == value
    assert abi.words((value % 2**256).to_bytes(32, "big") + b"rest") == [value % 2**256]


def thrown(signature: str, *values: object) -> bytes:
    return abi.call_data(signature, *values)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "reverted without a reason"),
        (thrown("Error(string)", "TRANSFER_FROM_FAILED"), "TRANSFER_FROM_FAILED"),
        (thrown("Error(string)", "GS013"), "a call that the Safe carried out failed (GS013)"),
        (thrown("Error(string)", "GS999"), "GS999"),
        (thrown("Error(string)", "a\nb\x1b[31m"), "a b[31m"),
        (thrown("Error(string)", ""), "reverted without a reason"),
        (thrown("Panic(uint256)", 0x11), "panic 0x11: arithmetic overflow"),
        (thrown("V3TooLittleReceived()"), "V3TooLittleReceived()"),
        (thrown("V4TooLittleReceived(uint256,uint256)", 5, 4), "V4TooLittleReceived(5, 4)"),
        (thrown("ExecutionFailed(uint256,bytes)", 2, thrown("InvalidNonce()")), "command 2: InvalidNonce()"),
        (thrown("AllowanceExpired(uint256)", 9), "AllowanceExpired(9)"),
        (bytes.fromhex("deadbeef") + bytes(64), "reverted with 0xdeadbeef" + "00" * 32),
        (bytes.fromhex("08c379a0") + b"\xff" * 40, "reverted with 0x08c379a0" + "ff" * 32),
    ],
)
def test_why_a_contract_refused(data: bytes, expected: str) -> None:
    assert abi.revert_reason(data) == expected


def test_refusals_inside_refusals_end() -> None:
    data = thrown("InvalidNonce()")
    for _ in range(50):
        data = thrown("ExecutionFailed(uint256,bytes)", 1, data)
    assert len(abi.revert_reason(data)) < 200


@given(st.binary(max_size=300))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    for start in (b"", abi.selector("Error(string)"), abi.selector("ExecutionFailed(uint256,bytes)")):
        reason = abi.revert_reason(start + data)
        assert reason
        assert "\n" not in reason
