"""What people sign for the treasury: a request goes out as a file, is read and signed elsewhere, and a signature comes back.

Reading and signing need no network: they happen on a machine that has settings of its own and a key in its keystore.
"""

from typing import Any, Literal

from agent.config import Loaded
from agent.domain.errors import SignerError
from agent.domain.plan import Call
from agent.keys.accounts.safe import safe_tx_of, unwrap
from agent.keys.asking import Asked, TakesSignatures
from agent.keys.bounds import norm
from agent.keys.digest import Transaction
from agent.keys.documents import preimage_of, read_request, read_signature_file, request_file, signature_file, word_of
from agent.keys.policy import acts_of
from agent.keys.qr import file_of, parts_of, svg_of, terminal_of
from agent.keys.rules import charged, told
from agent.keys.steps import Preimage
from agent.ports import Clock, Ticket
from agent.treasurer import asking
from agent.vaults import AccountSection, Opened, account_named, offline_signer, policy_of_account, tickets_of
from agent.wallet import Ask


async def export(loaded: Loaded, clock: Clock, ticket_id: str, ask: Ask | None) -> tuple[bytes, Asked]:
    """The request file of a ticket that people sign for. Raises SignerError when nothing is to be signed."""
    ticket = tickets_of(loaded, clock).find(ticket_id).ticket
    async with asking(loaded, clock, ticket.account, ask) as opened:
        found = await _signable(opened).asked(ticket)
        return request_file(found), found


async def take_in(loaded: Loaded, clock: Clock, raw: bytes, ask: Ask | None) -> Ticket:
    """A signature file. Raises SignerError when it is not for exactly what its ticket asks now, or of somebody else."""
    file = read_signature_file(file_of(raw))
    ticket = tickets_of(loaded, clock).find(file.ticket).ticket
    async with asking(loaded, clock, ticket.account, ask) as opened:
        vault = _signable(opened)
        return await vault.add(ticket, word_of(file, await vault.asked(ticket)))


def understood(loaded: Loaded, raw: bytes) -> tuple[Asked, AccountSection, tuple[str, ...]]:
    """A request, its account in these settings, and what it does as these settings' policy reads it.

    Nothing of it is believed. Raises SignerError for what the rules of these settings do not allow.
    """
    found = read_request(file_of(raw))
    account = account_named(loaded, found.account)
    if norm(account.address) != norm(found.address) or account.section.chain_id != found.chain_id:
        raise SignerError(f"the request is for {found.address} on chain {found.chain_id}; {account.name} is another account")
    policy = policy_of_account(loaded, account)
    source = found.source
    if isinstance(source, Transaction):
        calls: tuple[Call, ...] = (Call("0x" + source.to.hex(), source.data, source.value),)
    else:
        calls = unwrap(safe_tx_of(source.message), account.section.contracts.multi_send)
    acts = acts_of(policy, calls)
    charged(policy.rules, acts, policy.names)  # what no rule allows is not even asked about
    at = source.nonce if isinstance(source, Transaction) else source.message["nonce"]
    return (
        found,
        account,
        (*(told(act, policy.names) for act in acts), f"as number {at} of {account.address} on chain {found.chain_id}"),
    )


def sign_offline(loaded: Loaded, clock: Clock, found: Asked, account: AccountSection, key: str, password: Any) -> bytes:
    """The signature file. Raises SignerError for what the policy of these settings forbids, and for a request that is too old."""
    if clock.now_ns() >= found.expires_ns:
        raise SignerError("the request is too old; export it again")
    signer = offline_signer(loaded, clock, account, key, password)
    try:
        if signer.address not in found.signers:
            raise SignerError(f"key {key} is {signer.address}, which is not asked; it waits for {', '.join(found.signers)}")
        source = found.source
        kind: Literal["typed", "transaction"] = "transaction" if isinstance(source, Transaction) else "typed"
        signature: bytes = signer.sign_preimage(Preimage(kind, preimage_of(source), source))
        return signature_file(found, signer.address, signature)
    finally:
        signer.close()


def codes_of(raw: bytes) -> list[tuple[str, bytes]]:
    """(for the terminal, as SVG) of each QR code that a file takes. Raises SecretError without the library."""
    return [(terminal_of(part), svg_of(part)) for part in parts_of(raw)]


def _signable(opened: Opened) -> TakesSignatures:
    if not isinstance(opened.vault, TakesSignatures):
        raise SignerError(f"{opened.account.name} is of kind {opened.account.kind}; no person signs for it here")
    return opened.vault
