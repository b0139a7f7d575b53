"""Whether contracts are still the code that the user looked at: pinned by the hash of what lies at their address.

A key allows a contract by its address, and an address says nothing about the code behind a proxy, or on a chain that was forked and
changed. Whoever pins gets no new orders there as soon as the code is another one, until a person has looked. A proxy whose
implementation can be replaced (EIP-1967) is only pinned together with it: its implementation must be pinned as well.
"""

import asyncio
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any, TypeVar

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from agent.chains.rpc import Node
from agent.domain.errors import ChainError, ConfigError

T = TypeVar("T")

LOOK_EVERY_BLOCKS = 16
IMPLEMENTATION = "0x360894a13ba1a3210667c828492db98dca3e2076cc3735a920a3ca505d382bbc"  # its slot in a proxy, EIP-1967


class Pins:
    """Looks at the pinned contracts every few blocks. `trouble`: what is not as it was pinned; empty while all is well."""

    def __init__(self, rpc: Node, pins: Mapping[str, str]) -> None:
        self._rpc, self._pins = rpc, dict(pins)
        self._next = 0
        self.trouble = ""

    async def look(self, number: int) -> None:
        """At block `number`, if it is time. Raises ChainError when the node does not answer."""
        if self._pins and number >= self._next:
            self.trouble = await self._difference(number)
            self._next = number + (1 if self.trouble else LOOK_EVERY_BLOCKS)

    async def _difference(self, number: int) -> str:
        found = await code_hashes(self._rpc, self._pins, number)
        for address, code_hash in found.items():
            if address not in self._pins:
                return f"a pinned proxy leads to {address}, which is not pinned; look at it, then see `isthmus policy pin`"
            if self._pins[address] != code_hash:
                return f"the code at {address} is not the one that is pinned; look at it before you trade there again"
        return ""


async def code_hashes(rpc: Node, addresses: Iterable[str], number: int) -> dict[str, str]:
    """keccak-256 of the code at each address, and at the implementation that a proxy among them leads to, at block `number`.

    Raises ChainError; also where there is no code at all.
    """
    found: dict[str, str] = {}
    waiting = list(dict.fromkeys(addresses))
    while waiting:
        answers = await _all(_look(rpc, address, number) for address in waiting)
        found |= {address: code_hash for address, (code_hash, _) in zip(waiting, answers, strict=True)}
        waiting = [leads for leads in dict.fromkeys(leads for _, leads in answers) if leads and leads not in found]
    return found


async def _look(rpc: Node, address: str, number: int) -> tuple[str, str]:
    """(hash of the code, where a proxy leads or nothing)."""
    block = hex(number)
    code, slot = await _all([rpc.call("eth_getCode", address, block), rpc.call("eth_getStorageAt", address, IMPLEMENTATION, block)])
    try:
        raw, word = bytes.fromhex(code.removeprefix("0x")), bytes.fromhex(slot.removeprefix("0x"))
    except (AttributeError, ValueError):
        raise ChainError(f"{rpc.place} did not say what lies at {address}; try again, or use another node") from None
    if not raw:
        raise ChainError(f"there is no contract at {address} on chain {rpc.chain_id}; correct the settings")
    return "0x" + keccak(raw).hex(), str(to_checksum_address(word[-20:])) if any(word) else ""


async def _all(reads: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """At once, and all of them ended before the first failure is raised: none outlives its connection."""
    answers = await asyncio.gather(*reads, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return [answer for answer in answers if not isinstance(answer, BaseException)]


def checked(pins: Mapping[str, str]) -> dict[str, str]:
    """Pins of the settings, addresses with checksum. ConfigError for what is no address or no hash."""
    found = {}
    for address, code_hash in pins.items():
        try:
            name = str(to_checksum_address(address))
            is_hash = len(bytes.fromhex(code_hash.removeprefix("0x"))) == 32
        except (ValueError, TypeError):
            raise ConfigError(f"code_hashes: {address[:48]!r} = {code_hash[:80]!r} is no address and hash of code") from None
        if not is_hash:
            raise ConfigError(f"code_hashes: the hash for {name} has 64 hexadecimal digits; `isthmus policy pin` prints it")
        found[name] = "0x" + code_hash.removeprefix("0x").lower()
    return found
