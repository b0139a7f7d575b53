"""The signer understands exactly what our own router encoding says, and signs its permit into its place."""

import onchain_samples as o
import pytest

from agent.chains import router
from agent.domain.errors import SignerError
from agent.domain.plan import Call, Calls, SignatureSlot, SignedTransaction
from agent.keys.digest import typed_digest
from agent.keys.local import LocalSigner


def batch(recipient: str, permit: router.Permit) -> Calls:
    path = (o.USDC, o.WETH)
    pool = (o.USDC, o.WETH, 500, 10, o.NATIVE)
    swaps = tuple(
        swap
        for exact_in in (True, False)
        for swap in (
            router.v2_swap(recipient, path, 1_000, 900, exact_in=exact_in),
            router.v3_swap(recipient, path, 3_000, 1_000, 900, exact_in=exact_in),
            router.v4_swap(pool, path, 1_000, 900, exact_in=exact_in),
        )
    )
    data, offset = router.execute(permit, swaps)
    slot = SignatureSlot(0, offset, router.permit_typed("o-1", permit))
    return Calls("o-1", o.CHAIN, (Call(o.ROUTER, data),), (slot,), nonce=3, gas_limit=900_000, gas_fee_max=10**9, gas_tip=1)


async def test_our_own_batches_are_understood_and_signed() -> None:
    signer = LocalSigner(bytearray.fromhex(o.KEY_HEX))
    signer.allow(o.policy())
    permit = router.Permit(o.CHAIN, o.PERMIT2, o.ROUTER, o.USDC, 5_000, 0, o.DEADLINE_S)
    unsigned = batch(o.OWNER, permit)
    signed = await signer.sign(unsigned)
    assert isinstance(signed, SignedTransaction)
    slot = unsigned.slots[0]
    assert signer._sign_digest(typed_digest(slot.typed)) in signed.raw
    with pytest.raises(SignerError, match="V2_SWAP_EXACT_IN pays 0xdd"):
        await signer.sign(batch(o.THIEF, permit))
