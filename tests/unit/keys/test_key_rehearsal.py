"""What a transaction would do is held against what its bytes say."""

import onchain_samples as o
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.errors import ChainError, SignerError, SignerUnavailableError
from agent.domain.plan import SignedTransaction
from agent.keys.bounds import ANY_AMOUNT, Act
from agent.keys.local import LocalSigner
from agent.keys.rehearsal import Rehearsal, objection
from agent.ports import Asked, Rehearsed

USDC, WETH, THIEF, PERMIT2, ROUTER = (one.lower() for one in (o.USDC, o.WETH, o.THIEF, o.PERMIT2, o.ROUTER))
SWAP = Act("swap", ROUTER, USDC, 100, WETH, 7)
DONE = {USDC: -100, WETH: 7}


class Node:
    """Says what it was told to say, and keeps what it was asked."""

    def __init__(self, found: Rehearsed | ChainError) -> None:
        self.found, self.asked = found, list[Asked]()

    async def run(self, asked: Asked) -> Rehearsed:
        self.asked.append(asked)
        if isinstance(self.found, ChainError):
            raise self.found
        return self.found


def signer_over(node: Node) -> LocalSigner:
    signer = LocalSigner(bytearray(bytes.fromhex(o.KEY_HEX)))
    policy = o.policy()
    signer.allow(policy, Rehearsal(policy, node.run))
    return signer


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (Rehearsed("", DONE), ""),
        (Rehearsed("", DONE | {WETH: 8, THIEF: 5}), ""),
        (Rehearsed("", DONE, ((USDC, PERMIT2), (PERMIT2, ROUTER))), ""),
        (Rehearsed("V3TooLittleReceived()"), "it would fail: V3TooLittleReceived()"),
        (Rehearsed("", DONE | {USDC: -101}), "would end with -101 units"),
        (Rehearsed("", DONE | {WETH: 6}), "would end with +6 units"),
        (Rehearsed("", {USDC: -100}), "would end with +0 units"),
        (Rehearsed("", DONE | {THIEF: -1}), f"-1 units of {THIEF}, and the bytes promise +0"),
        (Rehearsed("", DONE | {o.NATIVE: -1}), f"-1 units of {o.NATIVE}"),
        (Rehearsed("", DONE, ((USDC, THIEF),)), f"it would let {THIEF} take coins of the account, says {USDC}"),
        (Rehearsed("", DONE, ((USDC, ROUTER),)), f"it would let {ROUTER}"),
        (Rehearsed("", DONE, ((PERMIT2, THIEF),)), f"it would let {THIEF}"),
    ],
)
def test_only_what_the_bytes_say_may_happen(found: Rehearsed, why: str) -> None:
    said = objection(o.policy(), (SWAP,), found)
    assert why in said
    assert bool(said) == bool(why)


def test_an_account_may_pay_for_its_own_gas_and_no_more() -> None:
    assert not objection(o.policy(), (SWAP,), Rehearsed("", DONE | {o.NATIVE: -50}), prefund=50)
    assert objection(o.policy(), (SWAP,), Rehearsed("", DONE | {o.NATIVE: -51}), prefund=50)


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 10**24), st.integers(1, 10**24)), min_size=1, max_size=5),
    st.integers(-(10**24), 10**24),
    st.integers(-(10**24), 10**24),
)
def test_several_swaps_are_bounded_together(legs: list[tuple[bool, int, int]], dollars: int, ethers: int) -> None:
    acts = [Act("swap", ROUTER, *((USDC, a, WETH, b) if is_buy else (WETH, a, USDC, b))) for is_buy, a, b in legs]
    least = {USDC: 0, WETH: 0}
    for act in acts:
        least[act.given] -= act.amount
        least[act.received] += act.least
    is_fine = dollars >= least[USDC] and ethers >= least[WETH]
    assert (not objection(o.policy(), acts, Rehearsed("", {USDC: dollars, WETH: ethers}))) == is_fine


def test_an_amount_that_the_bytes_do_not_say_is_bounded_by_the_contract_alone() -> None:
    acts = (Act("swap", ROUTER, USDC, ANY_AMOUNT, WETH, 7), Act("swap", ROUTER, WETH, 9, USDC, ANY_AMOUNT))
    assert not objection(o.policy(), acts, Rehearsed("", {USDC: -(10**30), WETH: -2}))
    assert objection(o.policy(), acts, Rehearsed("", {USDC: -(10**30), WETH: -3}))


async def test_the_key_waits_for_the_rehearsal_and_asks_about_the_finished_bytes() -> None:
    node = Node(Rehearsed("", {USDC: -(10**6), WETH: 1}))
    signer, unsigned = signer_over(node), o.permit_and_swap()
    assert signer.sign_now(unsigned) is None
    assert not node.asked
    signed = await signer.sign(unsigned)
    assert isinstance(signed, SignedTransaction)
    (asked,) = node.asked
    assert (asked.sender, asked.holder, asked.nonce) == (o.OWNER.lower(), o.OWNER.lower(), unsigned.nonce)
    assert asked.tokens == tuple(sorted((USDC, WETH)))
    assert asked.call.data in signed.raw
    assert asked.call.data != unsigned.calls[0].data, "with its permit signed"


async def test_what_does_something_else_is_not_signed() -> None:
    with pytest.raises(SignerError, match="rehearsal: the account would end with"):
        await signer_over(Node(Rehearsed("", {USDC: -(10**7), WETH: 1}))).sign(o.permit_and_swap())


async def test_without_a_node_nothing_is_signed_but_what_takes_risk_away() -> None:
    node = Node(ChainError("the node is gone"))
    with pytest.raises(SignerUnavailableError, match="could not be run beforehand, so it is not signed: the node is gone"):
        await signer_over(node).sign(o.permit_and_swap())
    assert len(node.asked) == 1
    assert isinstance(await signer_over(node).sign(o.calls(b"", to=o.OWNER)), SignedTransaction)
    assert len(node.asked) == 1
