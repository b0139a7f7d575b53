"""A key that acts for its account: what a venue asks for is wrapped into one transaction of the key, and signed within its policy.

Nothing has to be asked of the chain for it, and a transaction that is outbid or taken back is one as ever. The owner of a Safe
whose word is enough sends the Safe's transaction itself, which is its consent; a member of a role just calls; a smart account's
operation takes its number from the number of the transaction that brings it.
"""

from typing import Final

import msgspec

from agent.domain.errors import SignerError
from agent.domain.plan import Call, Calls, SignatureSlot, Signed, Unsigned
from agent.keys.accounts import erc4337, roles, safe
from agent.keys.accounts.kinds import Delegated, Kind, Role, Safe, UserOps
from agent.keys.accounts.owners import Consent, packed
from agent.keys.digest import address_bytes, checksum
from agent.keys.local import LocalSigner
from agent.keys.remote import RemoteSigner
from agent.ports import Custody

VERIFICATION_GAS: Final = 100_000  # of an operation; a SimpleAccount that exists takes 30,000 of it with a new number
OUTSIDE_GAS: Final = 80_000  # what the EntryPoint does around an operation, and keeps back; measured 45,000
_ZERO_BYTE, _BYTE, _TRANSACTION = 4, 16, 21_000  # gas of call data and of every transaction, EIP-2028


class AccountSigner:
    """A key in this process. Satisfies the ports Signer, PromptSigner and Account.

    `anchor`: the contract that the key itself tells the journal's head.
    """

    __slots__ = ("_account", "_anchor", "_signer")

    def __init__(self, signer: LocalSigner, account: Kind, anchor: str = "") -> None:
        self._signer, self._account, self._anchor = signer, account, anchor

    @property
    def address(self) -> str:
        """The account's, with checksum."""
        return checksum(address_bytes(self._account.address))

    @property
    def key_id(self) -> str:
        return self._signer.key_id

    @property
    def custody(self) -> Custody:
        return self._signer.custody

    async def sign(self, unsigned: Unsigned) -> Signed:
        """Sign what makes the account do it. Raises SignerError, and then nothing was signed."""
        return await self._signer.sign(asked(unsigned, self._account, self._signer.address, self._anchor))

    def sign_now(self, unsigned: Unsigned) -> Signed | None:
        """The same at once; None for a transaction that is to be rehearsed first."""
        return self._signer.sign_now(asked(unsigned, self._account, self._signer.address, self._anchor))

    def close(self) -> None:
        """Wipe the key. Every later request is refused."""
        self._signer.close()

    def __repr__(self) -> str:
        return f"AccountSigner({self.address}, {self._signer!r})"

    def __reduce__(self) -> str:
        raise SignerError("a signer cannot be pickled or copied")


class RemoteAccountSigner:
    """The same over a key that lies elsewhere, which answers later. Satisfies the ports Signer and Account."""

    __slots__ = ("_account", "_anchor", "_signer")

    def __init__(self, signer: RemoteSigner, account: Kind, anchor: str = "") -> None:
        self._signer, self._account, self._anchor = signer, account, anchor

    @property
    def address(self) -> str:
        """The account's, with checksum."""
        return checksum(address_bytes(self._account.address))

    @property
    def key_id(self) -> str:
        return self._signer.key_id

    @property
    def custody(self) -> Custody:
        return self._signer.custody

    async def sign(self, unsigned: Unsigned) -> Signed:
        """Sign what makes the account do it. Raises SignerError as the port says."""
        return await self._signer.sign(asked(unsigned, self._account, self._signer.address, self._anchor))

    async def close(self) -> None:
        """Every later request is refused."""
        await self._signer.close()

    def __repr__(self) -> str:
        return f"RemoteAccountSigner({self.address}, {self._signer!r})"

    def __reduce__(self) -> str:
        raise SignerError("a signer cannot be pickled or copied")


def acting(wallet: LocalSigner | RemoteSigner, account: Kind, anchor: str = "") -> AccountSigner | RemoteAccountSigner:
    """The signer of an account, over its key wherever that lies."""
    if isinstance(wallet, RemoteSigner):
        return RemoteAccountSigner(wallet, account, anchor)
    return AccountSigner(wallet, account, anchor)


def asked(unsigned: Unsigned, account: Kind, key: str, anchor: str) -> Unsigned:
    """What the key is asked to sign: its own acts as they are, everything else through its account."""
    return unsigned if not isinstance(unsigned, Calls) or _is_its_own(unsigned, key, anchor) else wrapped(unsigned, account, key)


def wrapped(unsigned: Calls, account: Kind, key: str) -> Calls:
    """The one call with which `key` makes the account do all of `unsigned` or nothing. Raises SignerError."""
    if unsigned.slots:
        raise SignerError("an account signs no permits; it tells Permit2 by calls of its own")
    match account:
        case Safe():
            tx = safe.wrap(unsigned.calls, account.multi_send)
            return _through(unsigned, account, safe.exec_data(tx, packed((Consent(key, "approved"),))))
        case Role():
            return _through(unsigned, account, roles.exec_data(unsigned.calls, account.key, account.multi_send))
        case UserOps():
            return _as_user_op(unsigned, account, key)
        case Delegated():
            return _through(unsigned, account, erc4337.execute_data(unsigned.calls, "0.8"))


def _through(unsigned: Calls, account: Kind, data: bytes, *slots: SignatureSlot) -> Calls:
    call = Call(checksum(address_bytes(account.entry)), data)
    return msgspec.structs.replace(unsigned, calls=(call,), slots=slots)


def _as_user_op(unsigned: Calls, account: UserOps, key: str) -> Calls:
    """The key pays for the transaction, so the account pays nothing: with fees of zero the EntryPoint takes nothing from it."""
    data = erc4337.execute_data(unsigned.calls, account.version)
    number, signature = erc4337.operation_number(key, unsigned.nonce), bytes(erc4337.SIGNATURE_BYTES)
    op = erc4337.UserOperation(account.address, number, data, VERIFICATION_GAS, 0, 0, 0, 0, signature=signature)
    op = msgspec.structs.replace(op, call_gas=_inner_gas(unsigned.gas_limit, erc4337.handle_data(op, key)))
    brought = erc4337.handle_data(op, key)
    slot = SignatureSlot(
        0,
        erc4337.read_handle(brought).signature_at,
        erc4337.user_op_typed(unsigned.order_id, op, account.entry_point, unsigned.chain_id, version=account.version),
    )
    return _through(unsigned, account, brought, slot)


def _inner_gas(gas_limit: int, data: bytes) -> int:
    """What is left for the calls themselves. The EntryPoint refuses an operation that could run short, so all of it is there.

    64 bytes more of call data than now may be something else than zero: the signature. Of what a call hands on, one 64th stays.
    """
    zeros = data.count(0)
    spent = _TRANSACTION + zeros * _ZERO_BYTE + (len(data) - zeros) * _BYTE + 2 * 64 * _BYTE
    left = (gas_limit - spent - VERIFICATION_GAS - OUTSIDE_GAS) * 63 // 64
    if left <= 0:
        raise SignerError(f"a gas limit of {gas_limit} leaves nothing for the account's calls; raise gas_limit_max in [risk]")
    return left


def _is_its_own(unsigned: Calls, key: str, anchor: str) -> bool:
    """What the key does as itself: to take a transaction back, and to anchor the journal."""
    call = unsigned.calls[0]
    if len(unsigned.calls) != 1 or call.value:
        return False
    to = call.to.lower()
    return (to == key.lower() and not call.data) or (bool(anchor) and to == anchor.lower())
