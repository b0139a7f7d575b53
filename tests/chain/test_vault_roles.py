"""A role's member is taken out by the owners of its Safe: from then on the hot key may nothing there, and no role is ever given."""

from collections.abc import Iterator
from pathlib import Path

import account_kit as kit
import pytest
from test_accounts_roles import COLD, HOT, PERMIT2, ROLE, Desk

from agent.app import RealClock
from agent.chains.rpc import Rpc
from agent.domain.errors import SignerError
from agent.domain.plan import Call
from agent.keys.accounts.kinds import Safe
from agent.keys.filing import Means
from agent.keys.local import LocalSigner
from agent.keys.secrets import Secrets
from agent.keys.tickets import Tickets
from agent.keys.transfers import ASSIGN_ROLES, treasury_policy
from agent.keys.vaults import safe

pytestmark = pytest.mark.chain
NOT_AUTHORIZED = "fd8e9f28"  # NoMembership()


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    with kit.running() as chain:
        yield Desk(chain)


async def test_a_member_is_taken_out_and_none_is_let_in(desk: Desk, tmp_path: Path) -> None:
    allowed = kit.approve(desk.token, PERMIT2, 1)
    assert desk.refused(allowed) == ""
    account = Safe(desk.safe, "0x" + "3b" * 20)
    policy = treasury_policy(
        desk.chain_id, COLD, PERMIT2, frozenset({desk.token}), 10**11, 900_000, account=account, modifier=desk.modifier
    )
    signer = LocalSigner(bytearray(kit.key("cold")))
    signer.allow(policy)
    chain = Rpc(desk.rpc.url, desk.chain_id)
    await chain.open()
    try:
        means = Means("cold", "safe", Tickets(tmp_path, RealClock()), policy, chain)
        vault = await safe.open_vault(means, safe.Config(address=desk.safe), (signer,), signer, Secrets(tmp_path))
        for keys, are_members in (([ROLE], [True]), ([ROLE, ROLE], [False, True]), ([], [])):
            with pytest.raises(SignerError, match="takes roles away and gives none"):
                await vault.propose("in", (Call(desk.modifier, ASSIGN_ROLES.data(HOT, keys, are_members)),))
        ticket = await vault.propose("out", (Call(desk.modifier, ASSIGN_ROLES.data(HOT, [ROLE], [False])),))
    finally:
        await chain.close()
    assert (ticket.state, ticket.meaning[0]) == (
        "done",
        f"take back what {HOT.lower()} may do with {desk.modifier.lower()}",
    )
    assert desk.refused(allowed) == NOT_AUTHORIZED
