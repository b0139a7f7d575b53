"""What people are asked to sign, and the words that they give: for vaults whose keys are not all on this machine."""

from typing import Protocol, runtime_checkable

import msgspec

from agent.domain.plan import TypedData
from agent.keys.accounts.owners import Consent
from agent.keys.digest import Transaction
from agent.ports import Ticket


class Asked(msgspec.Struct, frozen=True):
    """One thing to sign. `signers`: whose signatures are wanted, with checksum. `source`: typed data, or a transaction."""

    ticket: str
    account: str
    address: str
    signers: tuple[str, ...]
    meaning: tuple[str, ...]
    expires_ns: int
    chain_id: int
    source: TypedData | Transaction


@runtime_checkable
class TakesSignatures(Protocol):
    """A vault that people sign for."""

    async def asked(self, ticket: Ticket) -> Asked:
        """What is to be signed now. Raises SignerError when nothing is."""
        ...

    async def add(self, ticket: Ticket, word: Consent) -> Ticket:
        """Take somebody's word, if it is for exactly what is asked and of somebody who is asked. Raises SignerError."""
        ...
