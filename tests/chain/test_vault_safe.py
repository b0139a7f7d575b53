"""A Safe that waits for its owners, on a real chain: every form of a word, tickets in turn, one that is overtaken."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import account_kit as kit
import pytest
from account_kit import Chain
from eth_account.messages import encode_defunct

from agent.app import RealClock
from agent.chains.rpc import Rpc
from agent.domain.errors import SignerError
from agent.domain.plan import Call, TypedData
from agent.keys.accounts.kinds import Safe
from agent.keys.accounts.owners import Consent, packed
from agent.keys.accounts.safe import approve_data, exec_data, message_typed, wrap
from agent.keys.asking import Asked
from agent.keys.bounds import Rule
from agent.keys.digest import typed_digest, typed_preimage
from agent.keys.filing import Means, without_windows
from agent.keys.local import LocalSigner
from agent.keys.secrets import Secrets
from agent.keys.tickets import Tickets
from agent.keys.transfers import SWAP_OWNER, TRANSFER, treasury_policy
from agent.keys.vaults import safe
from agent.ports import Ticket
from agent.simulation.chain.deploy import PERMIT2
from agent.simulation.chain.wallets import deploy_safe_contracts, new_safe

pytestmark = pytest.mark.chain
A, B, C = (kit.account(name).address for name in ("a", "b", "c"))
FRIEND = "0x" + "f1" * 20


class Desk(Chain):
    """A Safe of B, C and a Safe of C: two of three. A only sends and pays for gas."""

    def __init__(self, chain: Chain) -> None:
        super().__init__(chain.rpc)
        contracts = deploy_safe_contracts(self.deployer)
        self.inner = new_safe(self.deployer, contracts, [C], 1, salt=7)
        self.account = Safe(new_safe(self.deployer, contracts, [B, C, self.inner], 2), contracts.multi_send)
        self.pay(A, B, self.account.address)
        self.chains: list[Rpc] = []

    async def vault(self, folder: Path, *, keys: tuple[str, ...] = (), log_blocks: int = 0) -> safe.SafeVault:
        chain = Rpc(self.rpc.url, self.chain_id)
        await chain.open()
        self.chains.append(chain)
        rule = Rule("a friend", "allow", frozenset({"transfer", "owners"}), to=frozenset({FRIEND, A.lower()}))
        tokens = frozenset({self.token})

        def allowed(name: str) -> LocalSigner:
            signer = LocalSigner(bytearray(kit.key(name)))
            made = treasury_policy(self.chain_id, signer.address, PERMIT2, tokens, 10**11, 900_000, (rule,), account=self.account)
            signer.allow(without_windows(made))
            return signer

        policy = treasury_policy(self.chain_id, A, PERMIT2, tokens, 10**11, 900_000, (rule,), account=self.account)
        means = Means("cold", "safe", Tickets(folder, RealClock()), policy, chain)
        config = safe.Config(address=self.account.address)
        found = tuple(allowed(name) for name in keys)
        if log_blocks:
            return safe.SafeVault(means, found, allowed("a"), log_blocks)
        vault: safe.SafeVault = await safe.open_vault(means, config, found, allowed("a"), Secrets(folder))
        return vault

    def to_friend(self, units: int) -> tuple[Call, ...]:
        return (Call(self.token, TRANSFER.data(FRIEND, units)),)

    def got(self) -> int:
        found: int = self.read(["uint256"], self.token, "balanceOf(address)", FRIEND)
        return found

    def number(self) -> int:
        found: int = self.read(["uint256"], self.account.address, "nonce()")
        return found


@pytest.fixture(scope="module")
def started() -> Iterator[Desk]:
    with kit.running() as chain:
        yield Desk(chain)


@pytest.fixture
async def desk(started: Desk) -> AsyncIterator[Desk]:
    snapshot = started.rpc.call("evm_snapshot")
    yield started
    for chain in started.chains:
        await chain.close()
    started.chains = []
    started.rpc.call("evm_revert", snapshot)


def typed(asked: Asked) -> TypedData:
    assert isinstance(asked.source, TypedData)
    return asked.source


def by_key(name: str, asked: Asked) -> Consent:
    return Consent(kit.account(name).address, "ecdsa", kit.signature(name, typed_digest(typed(asked))))


async def over(vault: safe.SafeVault, ticket: Ticket) -> Ticket:
    """Anvil mines a moment after it answers."""
    for _ in range(200):
        if ticket.state in ("done", "refused"):
            break
        ticket = await vault.poll(ticket)
    return ticket


async def test_what_is_signed_is_the_contract_s_own_hash_and_the_threshold_sends_it(desk: Desk, tmp_path: Path) -> None:
    vault = await desk.vault(tmp_path)
    ticket = await vault.propose("one", desk.to_friend(5))
    asked = await vault.asked(ticket)
    fields = [typed(asked).message[name] for name in ("to", "value", "data", "operation", "safeTxGas", "baseGas", "gasPrice")]
    fields += [typed(asked).message[name] for name in ("gasToken", "refundReceiver", "nonce")]
    kinds = "address,uint256,bytes,uint8,uint256,uint256,uint256,address,address,uint256"
    assert typed_digest(typed(asked)) == desk.read(["bytes32"], vault.address, f"getTransactionHash({kinds})", *fields)
    assert ticket.reason.startswith("0 of 2 owners agree")
    ticket = await vault.add(ticket, by_key("b", asked))
    assert ticket.reason.startswith("1 of 2 owners agree")
    ticket = await over(vault, await vault.add(ticket, by_key("c", asked)))
    assert (ticket.state, desk.got()) == ("done", 5)


async def test_every_form_of_an_owner_s_word(desk: Desk, tmp_path: Path) -> None:
    vault = await desk.vault(tmp_path)
    ticket = await vault.propose("by a contract and on the chain", desk.to_friend(5))
    asked = await vault.asked(ticket)
    inner = typed_digest(message_typed("", desk.chain_id, desk.inner, typed_preimage(typed(asked))))
    with pytest.raises(SignerError, match="is not for ticket"):
        await vault.add(ticket, Consent(desk.inner, "contract", packed((Consent(C, "ecdsa", kit.signature("b", inner)),))))
    await vault.add(ticket, Consent(desk.inner, "contract", packed((Consent(C, "ecdsa", kit.signature("c", inner)),))))
    desk.send("b", vault.address, approve_data(typed_digest(typed(asked))))
    assert (await over(vault, ticket)).state == "done"
    ticket = await vault.propose("with the prefix, and by a key that is here", desk.to_friend(6))
    vault = await desk.vault(tmp_path, keys=("c",))
    asked = await vault.asked(ticket)
    prefixed = bytes(kit.account("b").sign_message(encode_defunct(typed_digest(typed(asked)))).signature)
    ticket = await over(vault, await vault.add(ticket, Consent(B, "eth_sign", prefixed)))
    assert (ticket.state, desk.got()) == ("done", 11)


async def test_a_stranger_s_word_and_a_word_for_something_else_are_not_taken(desk: Desk, tmp_path: Path) -> None:
    vault = await desk.vault(tmp_path)
    first, second = await vault.propose("one", desk.to_friend(5)), await vault.propose("two", desk.to_friend(5))
    asked = await vault.asked(first)
    with pytest.raises(SignerError, match="is no owner"):
        await vault.add(first, by_key("a", asked))
    for wrong in (by_key("b", await vault.asked(second)), Consent(B, "ecdsa", by_key("c", asked).signature)):
        with pytest.raises(SignerError, match="is not for ticket"):
            await vault.add(first, wrong)
    assert (await vault.poll(first)).reason.startswith("0 of 2")


async def test_tickets_take_numbers_in_turn_and_one_that_is_refused_is_replaced_by_nothing(desk: Desk, tmp_path: Path) -> None:
    vault = await desk.vault(tmp_path, keys=("b",))
    tickets = [await vault.propose(f"number {n}", desk.to_friend(10 + n)) for n in range(3)]
    asked = [await vault.asked(one) for one in tickets]
    assert [typed(one).message["nonce"] for one in asked] == [0, 1, 2]
    third = await vault.add(tickets[2], by_key("c", asked[2]))
    assert (third.state, third.reason) == ("ready", "it waits for number 0 of the Safe, itself is 2")
    refused = await vault.refuse(tickets[1], "not this one")
    assert refused.state == "waiting", "somebody may have signed it: only using its number up ends it"
    with pytest.raises(SignerError, match="is not for ticket"):
        await vault.add(tickets[1], by_key("c", asked[1]))
    nothing = await vault.asked(tickets[1])
    assert nothing.meaning[0].startswith("nothing, in place of: transfer")
    await vault.add(tickets[1], by_key("c", nothing))
    assert (await over(vault, await vault.add(tickets[0], by_key("c", asked[0])))).state == "done"
    assert (await over(vault, tickets[1])).state == "refused"
    assert (await over(vault, tickets[2])).state == "done"
    assert (desk.got(), desk.number()) == (22, 3)


async def test_one_that_was_taken_back_and_happened_all_the_same_is_done(desk: Desk, tmp_path: Path) -> None:
    vault = await desk.vault(tmp_path)
    ticket = await vault.propose("one", desk.to_friend(5))
    asked = await vault.asked(ticket)
    await vault.refuse(ticket, "too late")
    words = packed((by_key("b", asked), by_key("c", asked)))
    desk.send("a", vault.address, exec_data(wrap(desk.to_friend(5), desk.account.multi_send), words))
    assert ((await over(vault, ticket)).state, desk.got()) == ("done", 5)


async def test_another_transaction_at_its_number_ends_it(desk: Desk, tmp_path: Path) -> None:
    vault = await desk.vault(tmp_path)
    ticket = await vault.propose("one", desk.to_friend(5))
    elsewhere = await (await desk.vault(tmp_path / "elsewhere")).propose("other", desk.to_friend(7))
    other = await desk.vault(tmp_path / "elsewhere")
    asked = await other.asked(elsewhere)
    for name in ("b", "c"):
        elsewhere = await other.add(elsewhere, by_key(name, asked))
    elsewhere = await over(other, elsewhere)
    assert elsewhere.state == "done"
    ticket = await vault.poll(ticket)
    assert (ticket.state, ticket.reason) == ("refused", "another transaction took number 0 of the Safe")


async def test_it_is_found_however_many_blocks_ago_it_happened(desk: Desk, tmp_path: Path) -> None:
    vault = await desk.vault(tmp_path, log_blocks=5)
    ticket = await vault.propose("one", desk.to_friend(5))
    asked = await vault.asked(ticket)
    desk.rpc.call("anvil_mine", hex(17))
    words = packed((by_key("b", asked), by_key("c", asked)))
    desk.send("a", vault.address, exec_data(wrap(desk.to_friend(5), desk.account.multi_send), words))
    desk.rpc.call("anvil_mine", hex(12))
    ticket = await vault.poll(ticket)
    assert (ticket.state, len(ticket.tx_hash), desk.got()) == ("done", 66, 5)
    other = await vault.propose("two", desk.to_friend(1))
    desk.rpc.call("anvil_mine", hex(15))
    await vault.poll(other)
    (kept,) = [one for one in Tickets(tmp_path, RealClock()).all() if one.ticket.id == other.id]
    assert int(kept.notes["block"]) == int(desk.rpc.call("eth_blockNumber"), 16)


async def test_what_would_fail_is_not_sent(desk: Desk, tmp_path: Path) -> None:
    vault = await desk.vault(tmp_path, keys=("b", "c"))
    ticket = await vault.propose("more than there is", desk.to_friend(10**12))
    assert ticket.state == "ready"
    assert "revert" in ticket.reason
    assert desk.nonce(A) == 0


async def test_what_failed_in_a_block_is_sent_anew_when_it_would_succeed_and_not_for_ever(desk: Desk, tmp_path: Path) -> None:
    vault = await desk.vault(tmp_path, keys=("b", "c"))
    code = desk.rpc.call("eth_getCode", desk.token, "latest")
    for _ in range(safe.TRIES_MAX):
        desk.rpc.call("evm_setAutomine", False)
        ticket = await vault.poll(await vault.propose("one", desk.to_friend(5)))
        assert ticket.state == "sent"
        desk.rpc.call("anvil_setCode", desk.token, "0x60006000fd")
        desk.rpc.call("evm_setAutomine", True)
        desk.rpc.call("evm_mine")
        ticket = await vault.poll(ticket)
        assert ticket.state == "ready"
        desk.rpc.call("anvil_setCode", desk.token, code)
    ticket = await vault.poll(ticket)
    assert (ticket.state, desk.got(), desk.nonce(A)) == ("ready", 0, safe.TRIES_MAX)
    assert "it failed in a block 3 times" in ticket.reason


async def test_an_owner_is_replaced_by_one_whom_a_rule_names_and_the_old_one_s_word_is_worth_nothing(
    desk: Desk, tmp_path: Path
) -> None:
    vault = await desk.vault(tmp_path, keys=("c",))
    owners: tuple[str, ...] = desk.read(["address[]"], vault.address, "getOwners()")
    before = {one.lower(): ("0x" + "00" * 19 + "01", *owners)[at] for at, one in enumerate(owners)}
    waiting = await vault.propose("later", desk.to_friend(9))
    early = by_key("b", await vault.asked(waiting))
    assert (await over(vault, await vault.add(waiting, early))).state == "done"
    for new, is_named in ((kit.OTHER, False), (A, True)):
        call = Call(vault.address, SWAP_OWNER.data(before[B.lower()], B, new))
        if not is_named:
            with pytest.raises(SignerError, match="no rule allows to make"):
                await vault.propose(f"swap to {new}", (call,))
    assert desk.got() == 9
    ticket = await vault.propose("B is gone", (call,))
    ticket = await over(vault, await vault.add(ticket, by_key("b", await vault.asked(ticket))))
    assert (ticket.state, ticket.meaning[0]) == ("done", f"make {A.lower()} an owner of {vault.address.lower()}")
    ticket = await vault.propose("after", desk.to_friend(1))
    with pytest.raises(SignerError, match="is no owner"):
        await vault.add(ticket, by_key("b", await vault.asked(ticket)))
