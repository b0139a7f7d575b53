"""Which account a key acts for, as data: who holds the tokens, and through which contract the key reaches it."""

from typing import Literal

import msgspec

from agent.domain.errors import SignerError
from agent.keys.digest import address_bytes

KEY_BYTES = 32
Version = Literal["0.7", "0.8"]  # of an EntryPoint: they differ in what is signed, and in how a batch is written


class Safe(msgspec.Struct, frozen=True):
    """A Safe 1.4.1. `multi_send`: the MultiSendCallOnly that it may delegate to, and the only contract that it may."""

    address: str
    multi_send: str

    def __post_init__(self) -> None:
        """Raises SignerError for a bad address, as each kind does."""
        _lower(self, "address", "multi_send")

    @property
    def entry(self) -> str:
        """The contract that the key's transactions go to."""
        return self.address


class Role(msgspec.Struct, frozen=True):
    """A role of Zodiac Roles v2 over a Safe: `modifier` is that contract, `key` the role's 32 bytes, `address` the Safe.

    `multi_send`: the MultiSendCallOnly for batches, which the modifier takes apart and judges call by call.
    """

    address: str
    modifier: str
    key: bytes
    multi_send: str

    def __post_init__(self) -> None:
        _lower(self, "address", "modifier", "multi_send")
        if len(self.key) != KEY_BYTES:
            raise SignerError(f"a role's key has {KEY_BYTES} bytes, this has {len(self.key)}")

    @property
    def entry(self) -> str:
        return self.modifier


class UserOps(msgspec.Struct, frozen=True):
    """An ERC-4337 account behind an EntryPoint. `init_code`: the one with which it may be created; empty: it exists."""

    address: str
    entry_point: str
    init_code: bytes = b""
    version: Version = "0.8"

    def __post_init__(self) -> None:
        _lower(self, "address", "entry_point")

    @property
    def entry(self) -> str:
        return self.entry_point


class Delegated(msgspec.Struct, frozen=True):
    """An EOA that runs the code of `delegate` (EIP-7702), so that it carries out several calls at once; `address` is the EOA."""

    address: str
    delegate: str

    def __post_init__(self) -> None:
        _lower(self, "address", "delegate")

    @property
    def entry(self) -> str:
        return self.address


Kind = Safe | Role | UserOps | Delegated


def _lower(kind: Kind, *names: str) -> None:
    for name in names:
        msgspec.structs.force_setattr(kind, name, "0x" + address_bytes(getattr(kind, name)).hex())
