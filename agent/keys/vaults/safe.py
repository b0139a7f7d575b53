"""`kind = "safe"`: a Safe 1.4.1 whose owners agree by threshold. Tickets take its numbers in turn and collect the owners' words.

An owner's word is a signature of a key that this machine reaches, one that a person brought in, an approval of the hash on the
chain, or what an owner that is a contract accepts (EIP-1271). SafeTxs have no end: a ticket that is taken back after somebody may
have signed it is over only when the owners have used its number up, with nothing. Source: Safe 1.4.1 (Safe.sol).
"""

from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from agent.domain.errors import SignerError, SignerUnavailableError
from agent.domain.plan import Call, SignedTyped, TypedData
from agent.keys.accounts.functions import function
from agent.keys.accounts.kinds import Safe
from agent.keys.accounts.owners import OWNERS_MAX, Consent, packed
from agent.keys.accounts.safe import SafeTx, exec_data, safe_tx_typed, wrap
from agent.keys.asking import Asked
from agent.keys.digest import address_bytes, checksum, keccak, typed_digest, typed_preimage
from agent.keys.filing import Means, ended, filed, is_over
from agent.keys.remote import recovered
from agent.keys.secrets import Secrets
from agent.keys.section import Section
from agent.keys.sending import asked, fate, hash_text, made, number, sent, view, word
from agent.keys.tickets import Filed
from agent.ports import Custody, Signer, Ticket

CUSTODY = Custody("safe", "cold", "people")
TRIES_MAX = 3
LOG_BLOCKS = 5_000  # that a node looks through at once
NOBODY = "the owners agree; nobody is here to send it: give a sender, or stop the agent that trades with [wallet]"
VERSION = "1.4.1"
EXECUTED: Final = "0x" + keccak(b"ExecutionSuccess(bytes32,uint256)").hex()
IS_VALID: Final = function("isValidSignature(bytes,bytes)")  # EIP-1271 as Safe 1.4.1 asks it; the selector is also its yes


class Config(Section):
    """`address`: the Safe's."""

    kind: Literal["safe"] = "safe"


class _State(msgspec.Struct, frozen=True):
    block: int  # the rest was read at this one, or later
    number: int
    threshold: int
    owners: tuple[str, ...]  # with checksum


async def open_vault(
    means: Means,
    config: Config,
    keys: Sequence[Signer],
    executor: Signer | None,
    secrets: Secrets,  # noqa: ARG001 - every kind is opened alike
) -> "SafeVault":
    """Raises SignerError when there is no such Safe, SignerUnavailableError when the chain is away."""
    (version,) = await view(means.chain, config.address, "VERSION()", ["string"])
    if version != VERSION:
        raise SignerError(f"{config.address} is a Safe of version {str(version)[:16]!r}; this program knows {VERSION}")
    return SafeVault(means, keys, executor)


class SafeVault:
    """Satisfies the ports Vault and TakesSignatures. `executor` sends and pays for gas; without one, people do."""

    __slots__ = ("_executor", "_keys", "_log_blocks", "_means", "_safe")

    def __init__(self, means: Means, keys: Sequence[Signer], executor: Signer | None, log_blocks: int = LOG_BLOCKS) -> None:
        account = means.policy.account
        if not isinstance(account, Safe):
            raise SignerError(f"the policy of {means.name} is of no Safe")
        self._means, self._keys, self._executor, self._safe = means, tuple(keys), executor, account
        self._log_blocks = log_blocks

    @property
    def address(self) -> str:
        return checksum(address_bytes(self._safe.address))

    @property
    def custody(self) -> Custody:
        return self._means.custody(CUSTODY)

    async def propose(self, request: str, calls: Sequence[Call]) -> Ticket:
        """As the port says. The ticket takes the Safe's next number that no other ticket has."""
        async with self._means.tickets.turn():
            state = await self._state()
            taken = [int(one.notes["number"]) for one in self._queue()]
            one, is_new = filed(
                self._means, request, calls, number=str(max(state.number, max(taken, default=-1) + 1)), block=str(state.block)
            )
            return (await self._advanced(one, state)).ticket if is_new else one.ticket

    async def poll(self, ticket: Ticket) -> Ticket:
        """As the port says: owners' words are collected, and it is sent when they are enough and its number's turn has come."""
        async with self._means.tickets.turn():
            one = self._means.tickets.find(ticket.id)
            return one.ticket if self._is_closed(one) else (await self._advanced(one, await self._state())).ticket

    async def refuse(self, ticket: Ticket, reason: str) -> Ticket:
        """At once when it is the last in the queue and nobody can have signed it; else the owners use its number up."""
        async with self._means.tickets.turn():
            one = self._means.tickets.find(ticket.id)
            if one.ticket.state in ("done", "refused", "sent"):
                raise SignerError(f"ticket {one.ticket.id} is {one.ticket.state}; it cannot be taken back")
            state = await self._state()
            is_last = all(int(other.notes["number"]) <= int(one.notes["number"]) for other in self._queue())
            is_unseen = not one.notes.get("shown") and not await self._words(one, state)
            if is_last and is_unseen:
                return ended(self._means, one, "refused", reason).ticket
            ends_ns = self._means.tickets.now_ns() + self._means.lasts_s * 10**9
            ticket = msgspec.structs.replace(one.ticket, expires_ns=ends_ns)
            one = msgspec.structs.replace(one, ticket=ticket)
            one = self._means.tickets.moved(one, "waiting", reason, nothing=reason or "refused", words="", shown="")
            return (await self._advanced(one, state)).ticket

    async def asked(self, ticket: Ticket) -> Asked:
        """As `TakesSignatures`: for every owner whose word is missing. From now on somebody may have signed it."""
        async with self._means.tickets.turn():
            one = self._means.tickets.find(ticket.id)
            if self._is_closed(one) or one.ticket.state == "sent":
                raise SignerError(f"ticket {one.ticket.id} is {one.ticket.state}; nothing is to be signed")
            state = await self._state()
            has = {found.owner for found in await self._words(one, state)}
            one = self._means.tickets.moved(one, one.ticket.state, one.ticket.reason, shown="yes")
            kept = one.ticket
            meaning = (f"nothing, in place of: {'; '.join(kept.meaning)}",) if "nothing" in one.notes else kept.meaning
            where = f"as number {one.notes['number']} of the Safe {self.address} on chain {self._means.policy.chain_id}"
            return Asked(
                kept.id,
                kept.account,
                self.address,
                tuple(owner for owner in state.owners if owner not in has),
                (*meaning, where),
                kept.expires_ns,
                self._means.policy.chain_id,
                self._typed(one),
            )

    async def add(self, ticket: Ticket, given: Consent) -> Ticket:
        """As `TakesSignatures`. A contract is asked on the chain whether it accepts its word."""
        async with self._means.tickets.turn():
            one = self._means.tickets.find(ticket.id)
            if self._is_closed(one) or one.ticket.state == "sent":
                raise SignerError(f"ticket {one.ticket.id} is {one.ticket.state}; it takes no signature")
            state = await self._state()
            owner = checksum(address_bytes(given.owner))
            if owner not in state.owners:
                raise SignerError(f"{owner} is no owner of the Safe {self.address}; nothing was taken")
            if not await self._holds(one, given):
                raise SignerError(f"the signature of {owner} is not for ticket {one.ticket.id}; nothing was taken")
            words = [found for found in _stored(one) if found.owner != owner]
            words.append(Consent(owner, given.how, given.signature))
            one = self._means.tickets.moved(one, one.ticket.state, one.ticket.reason, words=_text(words))
            return (await self._advanced(one, state)).ticket

    async def close(self) -> None:
        """The keys are closed by whoever opened them."""

    # -- how far a ticket is -------------------------------------------------------------------------------------------

    async def _advanced(self, one: Filed, state: _State) -> Filed:
        tickets, mine = self._means.tickets, int(one.notes["number"])
        if state.number > mine:
            return await self._settled(one)
        if one.ticket.state == "sent":
            told = await fate(self._means.chain, one)
            if not told or told == "done":  # done, and the Safe's number did not move: the node is behind itself
                return one
            tries = int(one.notes.get("tries", "0")) + (told == "failed")
            one = tickets.moved(one, "ready", "it failed in a block" if told == "failed" else "", raw="", tries=str(tries))
        elif is_over(self._means, one):
            why = f"nobody may sign it any more; `isthmus treasury refuse {one.ticket.id}` uses its number {mine} up"
            return tickets.moved(one, "expired", why)
        if state.block - int(one.notes["block"]) > self._log_blocks:  # until then it certainly did not happen
            one = tickets.moved(one, one.ticket.state, one.ticket.reason, block=str(state.block))
        one = await self._signed(one, state)
        words = await self._words(one, state)
        if len(words) < state.threshold:
            missing = ", ".join(owner for owner in state.owners if owner not in {found.owner for found in words})
            return tickets.moved(one, "waiting", f"{len(words)} of {state.threshold} owners agree; it waits for {missing}")
        if state.number < mine:
            return tickets.moved(one, "ready", f"it waits for number {state.number} of the Safe, itself is {mine}")
        return await self._executed(one, words[: state.threshold])

    async def _executed(self, one: Filed, words: Sequence[Consent]) -> Filed:
        tickets, tries = self._means.tickets, int(one.notes.get("tries", "0"))
        if tries >= TRIES_MAX:
            return tickets.moved(one, "ready", f"it failed in a block {tries} times; look at {one.ticket.tx_hash}, or refuse it")
        if self._executor is None:
            return tickets.moved(one, "ready", NOBODY)
        call = Call(self.address, exec_data(self._tx(one), packed(words)))
        sender = str(getattr(self._executor, "address", ""))
        try:
            calls = await made(self._means.chain, sender, call, self._means.policy.gas_fee_max, one.ticket.id)
            one = await sent(self._means.chain, tickets, one, calls, self._executor)
        except SignerUnavailableError as error:
            return tickets.moved(one, "ready", str(error))
        state = await self._state()
        return await self._settled(one) if state.number > int(one.notes["number"]) else one

    async def _settled(self, one: Filed) -> Filed:
        """The Safe's number has moved on: because of this ticket, or not. One that was taken back may have happened."""
        if tx_hash := await self._mined(one, wrap(one.calls, self._safe.multi_send)):
            return self._means.tickets.moved(one, "done", tx_hash=tx_hash, raw="")
        if "nothing" in one.notes and await self._mined(one, self._tx(one)):
            return ended(self._means, one, "refused", one.notes["nothing"])
        return ended(self._means, one, "refused", f"another transaction took number {one.notes['number']} of the Safe")

    async def _mined(self, one: Filed, tx: SafeTx) -> str:
        """The transaction in which the Safe carried it out; empty: it did not."""
        topic, chain = "0x" + typed_digest(self._typed(one, tx)).hex(), self._means.chain
        first, last = int(one.notes["block"]), await number(chain, "eth_blockNumber")
        for at in range(first, last + 1, self._log_blocks):
            span = {"fromBlock": hex(at), "toBlock": hex(min(at + self._log_blocks - 1, last))}
            logs = await asked(chain, "eth_getLogs", {"address": self.address, "topics": [EXECUTED, topic], **span})
            log: Any = logs[0] if isinstance(logs, list) and logs else None
            if isinstance(log, dict):
                return hash_text(log.get("transactionHash"))
        return ""

    async def _signed(self, one: Filed, state: _State) -> Filed:
        """With the words of the keys that this machine reaches, as far as words are missing. A key that is away is asked later."""
        words = list(_stored(one))
        has = {found.owner for found in await self._words(one, state)}
        for key in self._keys:
            owner = str(getattr(key, "address", ""))
            if owner not in state.owners or owner in has or len(has) >= state.threshold:
                continue
            try:
                signed = await key.sign(self._typed(one))
            except SignerError:  # it is away, its owner said no, or its own policy does: then it gives no word
                continue
            if isinstance(signed, SignedTyped):
                has.add(owner)
                words.append(Consent(owner, "ecdsa", signed.signature))
        return self._means.tickets.moved(one, one.ticket.state, one.ticket.reason, words=_text(words))

    async def _words(self, one: Filed, state: _State) -> list[Consent]:
        """Of those who are owners now: what is kept here, and approvals on the chain."""
        found = {kept.owner: kept for kept in _stored(one) if kept.owner in state.owners}
        digest = typed_digest(self._typed(one))
        for owner in state.owners:
            if owner not in found:
                (is_approved,) = await view(
                    self._means.chain, self.address, "approvedHashes(address,bytes32)", ["uint256"], word(owner), digest
                )
                if is_approved:
                    found[owner] = Consent(owner, "approved")
        return list(found.values())

    async def _holds(self, one: Filed, given: Consent) -> bool:
        typed = self._typed(one)
        if given.how == "contract":
            preimage = typed_preimage(typed)
            said = await self._says(given.owner, preimage, given.signature)
            return said[:4] == IS_VALID.selector
        digest = typed_digest(typed)
        if given.how == "eth_sign":
            digest = keccak(b"\x19Ethereum Signed Message:\n32" + digest)
        owner = checksum(address_bytes(given.owner))
        return given.how in ("ecdsa", "eth_sign") and recovered(digest, given.signature) == owner

    async def _says(self, owner: str, preimage: bytes, signature: bytes) -> bytes:
        data = IS_VALID.data(preimage, signature)
        try:
            raw = await asked(self._means.chain, "eth_call", {"to": owner, "data": "0x" + data.hex()}, "latest")
            return bytes.fromhex(str(raw)[2:])
        except (SignerUnavailableError, ValueError):  # a contract that does not accept reverts
            return b""

    async def _state(self) -> _State:
        chain = self._means.chain
        block = await number(chain, "eth_blockNumber")
        (now,) = await view(chain, self.address, "nonce()", ["uint256"])
        (threshold,) = await view(chain, self.address, "getThreshold()", ["uint256"])
        (owners,) = await view(chain, self.address, "getOwners()", ["address[]"])
        if not 0 < threshold <= len(owners) <= OWNERS_MAX:
            raise SignerUnavailableError(f"{self.address} does not answer as a Safe; check the address and the chain")
        return _State(block, now, threshold, tuple(checksum(address_bytes(owner)) for owner in owners))

    def _queue(self) -> list[Filed]:
        """The tickets that hold a number."""
        found = self._means.tickets.all(self._means.name)
        return [one for one in found if one.ticket.state not in ("done", "refused")]

    def _is_closed(self, one: Filed) -> bool:
        return one.ticket.state in ("done", "refused")

    def _tx(self, one: Filed) -> SafeTx:
        return SafeTx(self._safe.address, 0, b"") if "nothing" in one.notes else wrap(one.calls, self._safe.multi_send)

    def _typed(self, one: Filed, tx: SafeTx | None = None) -> TypedData:
        chain_id, mine = self._means.policy.chain_id, int(one.notes["number"])
        return safe_tx_typed(one.ticket.id, chain_id, self.address, tx or self._tx(one), mine)


def _stored(one: Filed) -> tuple[Consent, ...]:
    return msgspec.json.decode(one.notes.get("words", "[]"), type=tuple[Consent, ...])


def _text(words: Sequence[Consent]) -> str:
    return msgspec.json.encode(words).decode() if words else ""
