"""A contract's function by its signature: arguments to call data, and call data back, strictly.

What is read must be the canonical encoding, byte for byte: a contract may read other bytes in its own way; these have one reading.
"""

from typing import Any

import msgspec
from eth_abi.abi import encode
from eth_abi.exceptions import EncodingError

from agent.domain.errors import SignerError
from agent.keys.canonical import NotCanonicalError, read
from agent.keys.digest import keccak

SELECTOR_BYTES = 4


class Function(msgspec.Struct, frozen=True):
    """`kinds` are the types of its arguments, as the contract ABI writes them."""

    name: str
    kinds: tuple[str, ...]
    selector: bytes

    def data(self, *values: Any) -> bytes:
        """Selector and arguments. Raises SignerError for a value that does not fit its type."""
        try:
            return self.selector + encode(self.kinds, values)
        except (EncodingError, OverflowError, TypeError, ValueError) as error:
            raise SignerError(f"{self.name}: an argument does not fit ({str(error)[:120]})") from None

    def is_in(self, data: bytes) -> bool:
        """Whether the call data are for this function."""
        return data[:SELECTOR_BYTES] == self.selector

    def read(self, data: bytes) -> tuple[Any, ...]:
        """The arguments, addresses in lower case. Raises SignerError for another function or for bytes that are not canonical."""
        if not self.is_in(data):
            raise SignerError(f"policy: 0x{data[:SELECTOR_BYTES].hex()} is not {self.name}")
        try:
            return read(self.kinds, data[SELECTOR_BYTES:])
        except NotCanonicalError as error:
            raise SignerError(f"policy: {self.name} is not in canonical ABI encoding ({error})") from None


def function(signature: str) -> Function:
    """From `name(type,type)`; tuples are written with their members in parentheses."""
    name, _, inner = signature[:-1].partition("(")
    kinds, depth, start = [], 0, 0
    for at, letter in enumerate(inner):
        depth += (letter == "(") - (letter == ")")
        if letter == "," and not depth:
            kinds.append(inner[start:at])
            start = at + 1
    return Function(name, (*kinds, inner[start:]) if inner else (), keccak(signature.encode())[:SELECTOR_BYTES])
