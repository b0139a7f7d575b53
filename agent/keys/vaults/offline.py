"""`kind = "offline"`: an address whose key is on a machine without a network. It signs what people carry there and back.

A ticket is one transaction, laid out when it is asked for. Nothing limits how long its signature is good: once it was shown to
anybody, only another transaction with its number ends it.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from agent.domain.errors import SignerError
from agent.domain.plan import Call
from agent.keys.accounts.owners import Consent
from agent.keys.asking import Asked
from agent.keys.digest import (
    Transaction,
    address_bytes,
    keccak,
    transaction_fields,
    transaction_preimage,
    transaction_raw,
)
from agent.keys.documents import plain_transaction, read_plain_transaction
from agent.keys.filing import Means, check, ended, filed, is_over
from agent.keys.remote import recovered
from agent.keys.secrets import Secrets
from agent.keys.section import Section
from agent.keys.sending import fate, made, number, sent_raw
from agent.keys.tickets import Filed
from agent.ports import Custody, Signer, Ticket

CUSTODY = Custody("offline", "cold", "people")
TAKE_BACK_GAS = 21_000


class Config(Section):
    """`address`: the key's."""

    kind: Literal["offline"] = "offline"


async def open_vault(
    means: Means,
    config: Config,
    keys: Sequence[Signer],  # noqa: ARG001 - every kind is opened alike
    executor: Signer | None,  # noqa: ARG001
    secrets: Secrets,  # noqa: ARG001
) -> "OfflineVault":
    return OfflineVault(means, config.address)


class OfflineVault:
    """Satisfies the ports Vault and TakesSignatures."""

    __slots__ = ("_means", "address")

    def __init__(self, means: Means, address: str) -> None:
        self._means, self.address = means, address

    @property
    def custody(self) -> Custody:
        return self._means.custody(CUSTODY)

    async def propose(self, request: str, calls: Sequence[Call]) -> Ticket:
        """As the port says: one call, with fees of now and the next number that no other ticket has."""
        tickets, policy = self._means.tickets, self._means.policy
        async with tickets.turn():
            known = tickets.known(self._means.name, request, policy.chain_id, calls)
            if known is not None:
                return known.ticket
            check(self._means, calls, calls_max=1)
            call = calls[0]
            found = await made(self._means.chain, self.address, call, policy.gas_fee_max, request)
            taken = [int(other.notes["nonce"]) for other in self._queue()]
            nonce = max(found.nonce, max(taken, default=-1) + 1)
            gas = found.gas_tip, found.gas_fee_max, found.gas_limit
            tx = Transaction(policy.chain_id, nonce, *gas, address_bytes(call.to), call.value, call.data)
            notes = {"nonce": str(nonce), "sender": self.address, "tx": _text(tx)}
            one, _ = filed(self._means, request, calls, calls_max=1, **notes)
            return tickets.moved(one, "waiting", f"it waits for the signature of {self.address}").ticket

    async def poll(self, ticket: Ticket) -> Ticket:
        async with self._means.tickets.turn():
            return (await self._advanced(self._means.tickets.find(ticket.id))).ticket

    async def refuse(self, ticket: Ticket, reason: str) -> Ticket:
        """At once when it is the last and nobody was shown it; else the key signs nothing, with its number."""
        tickets = self._means.tickets
        async with tickets.turn():
            one = tickets.find(ticket.id)
            if one.ticket.state in ("done", "refused", "sent"):
                raise SignerError(f"ticket {one.ticket.id} is {one.ticket.state}; it cannot be taken back")
            is_last = all(int(other.notes["nonce"]) <= int(one.notes["nonce"]) for other in self._queue())
            if is_last and "shown" not in one.notes:
                return ended(self._means, one, "refused", reason).ticket
            nothing = Call(self.address, b"")
            found = await made(self._means.chain, self.address, nothing, self._means.policy.gas_fee_max, one.ticket.id)
            old = _transaction(one)
            fee = max(found.gas_fee_max, old.gas_fee_max * 9 // 8 + 1)  # it outbids the one that was shown
            tip = max(found.gas_tip, old.gas_tip * 9 // 8 + 1)
            own = address_bytes(self.address)
            tx = Transaction(old.chain_id, old.nonce, tip, fee, max(found.gas_limit, TAKE_BACK_GAS), own, 0, b"")
            ends_ns = tickets.now_ns() + self._means.lasts_s * 10**9
            one = msgspec.structs.replace(one, ticket=msgspec.structs.replace(one.ticket, expires_ns=ends_ns))
            wanted = f"it waits for {self.address} to sign nothing in its place"
            return tickets.moved(one, "waiting", wanted, nothing=reason or "refused", tx=_text(tx)).ticket

    async def asked(self, ticket: Ticket) -> Asked:
        """As `TakesSignatures`. From now on it may have been signed."""
        tickets = self._means.tickets
        async with tickets.turn():
            one = tickets.find(ticket.id)
            self._check_waits(one)
            one, kept = tickets.moved(one, one.ticket.state, one.ticket.reason, shown="yes"), one.ticket
            meaning = (f"nothing, in place of: {'; '.join(kept.meaning)}",) if "nothing" in one.notes else kept.meaning
            where = f"as number {one.notes['nonce']} of {self.address} on chain {one.chain_id}"
            signers, tx = (self.address,), _transaction(one)
            return Asked(kept.id, kept.account, self.address, signers, (*meaning, where), kept.expires_ns, one.chain_id, tx)

    async def add(self, ticket: Ticket, given: Consent) -> Ticket:
        """As `TakesSignatures`, and sends it."""
        tickets = self._means.tickets
        async with tickets.turn():
            one = tickets.find(ticket.id)
            self._check_waits(one)
            if is_over(self._means, one):
                return (await self._advanced(one)).ticket
            fields = transaction_fields(_transaction(one))
            if given.how != "ecdsa" or recovered(keccak(transaction_preimage(fields)), given.signature) != self.address:
                raise SignerError(f"the signature is not of {self.address} for ticket {one.ticket.id}; nothing was taken")
            raw = transaction_raw(fields, given.signature)
            tx_hash, nonce = "0x" + keccak(raw).hex(), int(one.notes["nonce"])
            one = await sent_raw(self._means.chain, tickets, one, raw, tx_hash, self.address, nonce, is_kept=True)
            return (await self._advanced(one)).ticket

    async def close(self) -> None:
        """There is nothing to close."""

    async def _advanced(self, one: Filed) -> Filed:
        tickets = self._means.tickets
        if one.ticket.state in ("done", "refused"):
            return one
        nonce = int(one.notes["nonce"])
        if one.ticket.state == "ready":  # signed, and the node did not take it then
            one = tickets.moved(one, "sent", one.ticket.reason) if "raw" in one.notes else one
        if one.ticket.state == "sent":
            return self._told(one, await fate(self._means.chain, one))
        if await number(self._means.chain, "eth_getTransactionCount", self.address, "latest") > nonce:
            return self._told(one, "replaced")
        if is_over(self._means, one) and one.ticket.state != "expired":
            if "shown" not in one.notes:
                return ended(self._means, one, "refused", "nobody signed it in time")
            why = f"it is not sent any more; `isthmus treasury refuse {one.ticket.id}` uses its number {nonce} up"
            return tickets.moved(one, "expired", why)
        return one

    def _told(self, one: Filed, told: str) -> Filed:
        tickets, nonce = self._means.tickets, one.notes["nonce"]
        if told == "done":
            is_taken_back = "nothing" in one.notes
            return ended(self._means, one, "refused", one.notes["nothing"]) if is_taken_back else tickets.moved(one, "done", raw="")
        if told == "failed":
            return ended(self._means, one, "refused", f"it failed in a block; look at {one.ticket.tx_hash}")
        if told == "replaced":
            why = f"another transaction used number {nonce} of {self.address}; look whether it was this one before asking anew"
            return tickets.moved(one, "refused", why)
        return one

    def _check_waits(self, one: Filed) -> None:
        if one.ticket.state in ("done", "refused", "sent"):
            raise SignerError(f"ticket {one.ticket.id} is {one.ticket.state}; nothing is to be signed")

    def _queue(self) -> list[Filed]:
        found = self._means.tickets.all(self._means.name)
        return [one for one in found if one.ticket.state not in ("done", "refused") and "nonce" in one.notes]


def _text(tx: Transaction) -> str:
    return msgspec.json.encode(plain_transaction(tx)).decode()


def _transaction(one: Filed) -> Transaction:
    return read_plain_transaction(msgspec.json.decode(one.notes["tx"], type=dict[str, str]))
