"""The router's bytes beside eth_abi's: the same for every swap, permit and batch, and nothing for what does not fit."""

import pytest
from eth_abi.abi import encode
from hypothesis import given
from hypothesis import strategies as st

from agent.chains import router
from agent.chains.abi import selector
from agent.domain.errors import ChainError

ADDRESS = st.binary(min_size=20, max_size=20).map(lambda raw: "0x" + raw.hex())
AMOUNT = st.one_of(st.integers(0, 2**128 - 1), st.sampled_from([0, 1, 2**128 - 1]))
PATH = st.tuples(ADDRESS, ADDRESS)
SINGLE = "((address,address,uint24,int24,address),bool,uint128,uint128,bytes)"
PERMIT = ("((address,uint160,uint48,uint48),address,uint256)", "bytes")


@given(ADDRESS, PATH, AMOUNT, AMOUNT, st.booleans())
def test_v2(recipient, path, amount, bound, exact_in):
    kinds = ["address", "uint256", "uint256", "address[]", "bool"]
    assert router.v2_swap(recipient, path, amount, bound, exact_in=exact_in).body == encode(
        kinds, [recipient, amount, bound, list(path), True]
    )


@given(ADDRESS, PATH, st.integers(0, 2**24 - 1), AMOUNT, AMOUNT, st.booleans())
def test_v3(recipient, path, fee, amount, bound, exact_in):
    first, last = path if exact_in else reversed(path)
    way = bytes.fromhex(first[2:]) + fee.to_bytes(3, "big") + bytes.fromhex(last[2:])
    kinds = ["address", "uint256", "uint256", "bytes", "bool"]
    assert router.v3_swap(recipient, path, fee, amount, bound, exact_in=exact_in).body == encode(
        kinds, [recipient, amount, bound, way, True]
    )


@given(
    st.tuples(ADDRESS, ADDRESS, st.integers(0, 2**24 - 1), st.integers(1, 32_767), ADDRESS),
    st.booleans(),
    AMOUNT,
    AMOUNT,
    st.booleans(),
)
def test_v4(key, forward, amount, bound, exact_in):
    path = (key[0], key[1]) if forward else (key[1], key[0])
    most, least = (amount, bound) if exact_in else (bound, amount)
    single = encode([SINGLE], [(key, path[0] == key[0], amount, bound, b"")])
    ends = [encode(["address", "uint256"], [path[0], most]), encode(["address", "uint256"], [path[1], least])]
    actions = bytes([0x06 if exact_in else 0x08, 0x0C, 0x0F])
    body = router.v4_swap(key, path, amount, bound, exact_in=exact_in).body
    assert body == encode(["bytes", "bytes[]"], [actions, [single, *ends]])


@given(
    st.tuples(ADDRESS, ADDRESS, ADDRESS),
    st.integers(0, 2**160 - 1),
    st.integers(0, 2**48 - 1),
    st.integers(0, 2**48 - 1),
    st.lists(st.builds(router.Swap, st.integers(0, 63), st.binary(max_size=200)), max_size=5).map(tuple),
)
def test_a_batch_and_the_place_of_its_signature(places, amount, nonce, deadline_s, swaps):
    permit = router.Permit(1, places[0], places[1], places[2], amount, nonce, deadline_s)
    data, offset = router.execute(permit, swaps)

    def whole(signature: bytes) -> bytes:
        opening = encode(PERMIT, (((places[2], amount, deadline_s, nonce), places[1], deadline_s), signature))
        commands = bytes([0x0A, *(swap.command for swap in swaps)])
        inputs = [opening, *(swap.body for swap in swaps)]
        kinds = ("bytes", "bytes[]", "uint256")
        return selector("execute(bytes,bytes[],uint256)") + encode(kinds, (commands, inputs, deadline_s))

    assert data == whole(bytes(65))
    assert data[:offset] + b"\x07" * 65 + data[offset + 65 :] == whole(b"\x07" * 65)


def test_what_does_not_fit_is_not_built():
    one, other = "0x" + "11" * 20, "0x" + "22" * 20
    with pytest.raises(ChainError, match="does not fit 128 bits"):
        router.v4_swap((one, other, 500, 10, "0x" + "00" * 20), (one, other), 2**128, 1, exact_in=True)
    for amount in (-1, 2**256):
        with pytest.raises(ChainError, match="does not fit 256 bits"):
            router.v2_swap(one, (one, other), amount, 1, exact_in=True)
    with pytest.raises(ChainError, match="is not an address"):
        router.v2_swap("0x11", (one, other), 1, 1, exact_in=True)
