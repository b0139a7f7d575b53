"""A role's member is taken out by the owners of its Safe: from then on the hot key may nothing there, and no role is ever given."""

from collections.abc import Iterator
from pathlib import Path

import account_kit as kit
import pytest
from account_kit import Chain

from agent.app import RealClock
from agent.chains.rpc import Rpc
from agent.domain.errors import SignerError
from agent.domain.plan import Call
from agent.keys.accounts import roles
from agent.keys.accounts.kinds import Safe
from agent.keys.accounts.owners import Consent, packed
from agent.keys.accounts.safe import ENABLE_MODULE, exec_data, wrap
from agent.keys.filing import Means
from agent.keys.local import LocalSigner
from agent.keys.secrets import Secrets
from agent.keys.tickets import Tickets
from agent.keys.transfers import ASSIGN_ROLES, treasury_policy
from agent.keys.vaults import safe
from agent.simulation.chain.deploy import PERMIT2
from agent.simulation.chain.rpc import RpcError
from agent.simulation.chain.wallets import deploy_roles, deploy_safe_contracts, new_safe

pytestmark = pytest.mark.chain
NO_MEMBERSHIP = "fd8e9f28"  # NoMembership()
COLD, HOT = (kit.account(name).address for name in ("cold", "hot"))
ROLE = roles.role_key("agent")
APPROVE = bytes.fromhex("095ea7b3")


class Desk(Chain):
    """A Safe of a cold key, and a role in it for a hot one, which may approve the token."""

    def __init__(self, chain: Chain) -> None:
        super().__init__(chain.rpc)
        shared = deploy_safe_contracts(self.deployer)
        self.multi_send, self.safe = shared.multi_send, new_safe(self.deployer, shared, [COLD])
        self.pay(COLD, HOT, self.safe)
        self.modifier, _ = deploy_roles(self.deployer, self.safe)
        set_up = (
            Call(self.safe, ENABLE_MODULE.data(self.modifier)),
            roles.scope_target(self.modifier, ROLE, self.token),
            roles.scope_function(self.modifier, ROLE, self.token, APPROVE, roles.arguments(roles.ANYTHING, roles.ANYTHING)),
            roles.assign(self.modifier, HOT, [ROLE]),
        )
        data = exec_data(wrap(set_up, shared.multi_send), packed((Consent(COLD, "approved"),)))
        self.send("cold", self.safe, data, gas=3_000_000)

    def refused(self, call: Call) -> str:
        """Why the contract refuses, as the first eight digits of the revert; empty if it does not."""
        try:
            self.asked(HOT, self.modifier, roles.exec_data((call,), ROLE, self.multi_send))
        except RpcError as error:
            return str(error.data)[2:10]
        return ""


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    with kit.running() as chain:
        yield Desk(chain)


async def test_a_member_is_taken_out_and_none_is_let_in(desk: Desk, tmp_path: Path) -> None:
    allowed = kit.approve(desk.token, PERMIT2, 1)
    assert desk.refused(allowed) == ""
    account = Safe(desk.safe, desk.multi_send)
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
        for _ in range(200):  # Anvil mines a moment after it answers
            ticket = ticket if ticket.state == "done" else await vault.poll(ticket)
    finally:
        await chain.close()
    assert (ticket.state, ticket.meaning[0]) == (
        "done",
        f"take back what {HOT.lower()} may do with {desk.modifier.lower()}",
    )
    assert desk.refused(allowed) == NO_MEMBERSHIP
