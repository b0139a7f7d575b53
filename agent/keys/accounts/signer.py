"""A key that acts for its Safe: what a venue asks for is wrapped into one transaction of the key, and signed within its policy.

The key is an owner whose word is enough (threshold 1), and it sends the transaction itself, which is its consent: nothing of the
Safe's is signed, so no number of the Safe's has to be known, and a transaction that is outbid or taken back is one as ever.
"""

import msgspec

from agent.domain.errors import SignerError
from agent.domain.plan import Call, Calls, Signed, Unsigned
from agent.keys.accounts.kinds import Safe
from agent.keys.accounts.owners import Consent, packed
from agent.keys.accounts.safe import exec_data, wrap
from agent.keys.digest import address_bytes, checksum
from agent.keys.local import LocalSigner
from agent.keys.remote import RemoteSigner
from agent.ports import Custody


class SafeSigner:
    """Satisfies the ports Signer, PromptSigner and Account. `anchor`: the contract that the key itself tells the journal's head."""

    __slots__ = ("_account", "_anchor", "_signer")

    def __init__(self, signer: LocalSigner, account: Safe, anchor: str = "") -> None:
        self._signer, self._account, self._anchor = signer, account, anchor

    @property
    def address(self) -> str:
        """The Safe's, with checksum."""
        return checksum(address_bytes(self._account.address))

    @property
    def key_id(self) -> str:
        return self._signer.key_id

    @property
    def custody(self) -> Custody:
        return self._signer.custody

    async def sign(self, unsigned: Unsigned) -> Signed:
        """Sign what makes the Safe do it. Raises SignerError, and then nothing was signed."""
        return await self._signer.sign(_asked(unsigned, self._account, self._signer.address, self._anchor))

    def sign_now(self, unsigned: Unsigned) -> Signed | None:
        """The same at once; None for a transaction that is to be rehearsed first."""
        return self._signer.sign_now(_asked(unsigned, self._account, self._signer.address, self._anchor))

    def close(self) -> None:
        """Wipe the key. Every later request is refused."""
        self._signer.close()

    def __repr__(self) -> str:
        return f"SafeSigner({self.address}, {self._signer!r})"

    def __reduce__(self) -> str:
        raise SignerError("a signer cannot be pickled or copied")


class RemoteSafeSigner:
    """The same over a key that lies elsewhere. Satisfies the ports Signer and Account."""

    __slots__ = ("_account", "_anchor", "_signer")

    def __init__(self, signer: RemoteSigner, account: Safe, anchor: str = "") -> None:
        self._signer, self._account, self._anchor = signer, account, anchor

    @property
    def address(self) -> str:
        """The Safe's, with checksum."""
        return checksum(address_bytes(self._account.address))

    @property
    def key_id(self) -> str:
        return self._signer.key_id

    @property
    def custody(self) -> Custody:
        return self._signer.custody

    async def sign(self, unsigned: Unsigned) -> Signed:
        """Sign what makes the Safe do it. Raises SignerError as the port says."""
        return await self._signer.sign(_asked(unsigned, self._account, self._signer.address, self._anchor))

    async def close(self) -> None:
        """Every later request is refused."""
        await self._signer.close()

    def __repr__(self) -> str:
        return f"RemoteSafeSigner({self.address}, {self._signer!r})"

    def __reduce__(self) -> str:
        raise SignerError("a signer cannot be pickled or copied")


def wrapped(unsigned: Calls, account: Safe, key: str) -> Calls:
    """The one call with which `key`, an owner whose word is enough, makes the Safe do all of `unsigned` or nothing."""
    data = exec_data(wrap(unsigned.calls, account.multi_send), packed((Consent(key, "approved"),)))
    return msgspec.structs.replace(unsigned, calls=(Call(checksum(address_bytes(account.address)), data),))


def _asked(unsigned: Unsigned, account: Safe, key: str, anchor: str) -> Unsigned:
    """What the key is asked to sign: its own acts as they are, everything else through the Safe."""
    return unsigned if not isinstance(unsigned, Calls) or _is_its_own(unsigned, key, anchor) else wrapped(unsigned, account, key)


def _is_its_own(unsigned: Calls, key: str, anchor: str) -> bool:
    """What the key does as itself: to take a transaction back, and to anchor the journal."""
    call = unsigned.calls[0]
    if len(unsigned.calls) != 1 or call.value:
        return False
    to = call.to.lower()
    return (to == key.lower() and not call.data) or (bool(anchor) and to == anchor.lower())
