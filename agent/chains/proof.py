"""Balances that are proved and not only told: a chain of hashes from the block's own hash down to the balance.

A block's hash is the hash of its header, the header holds the root of all state, and a proof (EIP-1186, `eth_getProof`) leads from
there to one account and one place in a contract's storage. Whoever has the right block hash cannot be told a wrong balance. An
ERC-20 keeps its balances in a mapping whose place nobody publishes; it is found once, by trying the first ones with a balance that
is known.
Sources: EIP-1186; yellow paper, appendix D; the header's fields as of EIP-1559, 4844, 4788, 4895 and 7685.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import rlp  # type: ignore[import-untyped]
from eth_utils.crypto import keccak
from rlp.exceptions import RLPException  # type: ignore[import-untyped]
from trie.exceptions import BadTrieProof, InvalidNibbles, InvalidNode, ValidationError
from trie.hexary import HexaryTrie

from agent.chains.rpc import Node, NodeRefusedError, octets, whole
from agent.domain.amount import Amount, Asset
from agent.domain.errors import ChainError

SLOTS_MAX = 21  # places 0 to 20 of a contract's storage are tried
_WORD = 32
_NO_SUCH_METHOD: Final = "-32601"
_BAD_TRIE = (BadTrieProof, InvalidNibbles, InvalidNode, ValidationError)
# In the header's own order: (field, whether it is a number). What a chain does not have yet is absent at the end.
_HEADER: Final = (
    ("parentHash", False),
    ("sha3Uncles", False),
    ("miner", False),
    ("stateRoot", False),
    ("transactionsRoot", False),
    ("receiptsRoot", False),
    ("logsBloom", False),
    ("difficulty", True),
    ("number", True),
    ("gasLimit", True),
    ("gasUsed", True),
    ("timestamp", True),
    ("extraData", False),
    ("mixHash", False),
    ("nonce", False),
    ("baseFeePerGas", True),
    ("withdrawalsRoot", False),
    ("blobGasUsed", True),
    ("excessBlobGas", True),
    ("parentBeaconBlockRoot", False),
    ("requestsHash", False),
)


class Proofs:
    """Proves the coins of one wallet and the tokens of their holder, itself or another.

    Remembers where each token keeps them, and whether the node can prove anything at all.
    """

    def __init__(self, rpc: Node, wallet: str, holder: str = "") -> None:
        self._rpc, self._wallet, self._holder = rpc, wallet, holder or wallet
        self._slots: dict[str, int] = {}  # token -> the place of its mapping of balances
        self._is_able = True

    async def prove(self, block: int, block_hash: str, native: Asset, told: Mapping[Asset, int]) -> tuple[Amount, ...]:
        """The balances at this block that can be proved; `told` are those of tokens, which only serve to find their places.

        Empty when the node gives no proofs, or none that leads to `block_hash`.
        """
        if not self._is_able:
            return ()
        try:
            root = await self._state_root(block, block_hash)
            if root is None:
                return ()
            coins = await self._account(root, self._wallet, (), block)
            found = [Amount(coins[0], native)] if coins is not None else []
            for asset, units in told.items():
                proved = await self._token(root, asset.address, units, block)
                found += [] if proved is None else [Amount(proved, asset)]
        except NodeRefusedError as refusal:
            self._is_able = refusal.code != _NO_SUCH_METHOD
            return ()
        except ChainError:
            return ()
        return tuple(found)

    async def _state_root(self, block: int, block_hash: str) -> bytes | None:
        """From the header that has this hash; None when none has."""
        header = await self._rpc.call("eth_getBlockByNumber", hex(block), False)
        if not isinstance(header, dict) or header_hash(header) != octets(block_hash):
            return None
        return octets(header["stateRoot"])

    async def _token(self, root: bytes, token: str, units: int, block: int) -> int | None:
        """The holder's balance of a token, proved; None while its place is not known."""
        known = self._slots.get(token)
        if known is None and not units:
            return None  # every empty place would fit
        slots = range(SLOTS_MAX) if known is None else (known,)
        found = await self._account(root, token, [_mapped(self._holder, slot) for slot in slots], block)
        if found is None:
            return None
        if known is None:
            fits = [slot for slot, value in zip(slots, found[1], strict=True) if value == units]
            if len(fits) != 1:
                return None
            self._slots[token] = fits[0]
            return units
        return found[1][0]

    async def _account(self, root: bytes, address: str, keys: Sequence[bytes], block: int) -> tuple[int, list[int]] | None:
        """(coins, values at `keys`) of an account, as the proof shows; None when it does not lead to `root`."""
        answer = await self._rpc.call("eth_getProof", address, ["0x" + key.hex() for key in keys], hex(block))
        try:
            _, coins, storage, _ = _decoded(_at(root, keccak(octets(address)), answer["accountProof"])) or (b"",) * 4
            parts = answer["storageProof"]
            if len(parts) != len(keys):
                return None
            values = [_at(storage, keccak(key), part["proof"]) if storage else b"" for key, part in zip(keys, parts, strict=True)]
            return int.from_bytes(coins, "big"), [int.from_bytes(_decoded(value), "big") for value in values]
        except (KeyError, TypeError, ValueError, *_BAD_TRIE, RLPException):
            return None


def header_hash(header: dict[str, Any]) -> bytes:
    """The hash of a header as JSON-RPC gives it. Raises ChainError when a field is no data."""
    fields = []
    for name, is_number in _HEADER:
        value = header.get(name)
        if value is None:
            break
        fields.append(_minimal(whole(value)) if is_number else octets(value))
    return keccak(rlp.encode(fields))


def _at(root: bytes, key: bytes, proof: Sequence[str]) -> bytes:
    """What the trie with this root holds at `key`; empty when the proof shows that it holds nothing."""
    nodes = [rlp.decode(octets(node)) for node in proof]
    return bytes(HexaryTrie.get_from_proof(root, key, nodes))  # type: ignore[no-untyped-call]


def _decoded(raw: bytes) -> Any:
    return rlp.decode(raw) if raw else b""


def _mapped(owner: str, slot: int) -> bytes:
    """Where a Solidity mapping in place `slot` keeps the value of `owner`."""
    return keccak(octets(owner).rjust(_WORD, b"\0") + slot.to_bytes(_WORD, "big"))


def _minimal(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")
