"""`kind = "jsonrpc"`: a node or signing program that holds the key and speaks JSON-RPC.

It is asked `eth_signTypedData_v4` with the fields and `eth_signTransaction` with the transaction, never for a hash. What comes back
must be that very transaction, to the last byte.
"""

from typing import Any, Literal

import msgspec

from agent.domain.errors import SignerError, SignerUnavailableError
from agent.domain.plan import TypedData
from agent.keys.accounts.erc4337 import refuse_07
from agent.keys.digest import Transaction, address_bytes
from agent.keys.http import HttpSection, link_of
from agent.keys.raw import read_signature, read_transaction
from agent.keys.remote import Key, signature_of
from agent.keys.secrets import Secrets
from agent.keys.steps import Preimage
from agent.ports import Custody

CUSTODY = Custody("jsonrpc", "hot", "milliseconds")
ACCOUNTS_MAX = 1_000
REFUSED = (-32601, -32602, -32600, 4001, 4100, 4200)  # JSON-RPC 2.0 and EIP-1193: asked wrongly, or refused by its owner

_DOMAIN = {"name": "string", "version": "string", "chainId": "uint256", "verifyingContract": "address", "salt": "bytes32"}


class Config(HttpSection):
    kind: Literal["jsonrpc"] = "jsonrpc"
    typed_method: Literal["eth_signTypedData_v4", "eth_signTypedData"] = "eth_signTypedData_v4"


async def open_key(name: str, config: Config, secrets: Secrets) -> Key:
    """Raises SignerUnavailableError when nothing answers, SignerError when it has other accounts."""
    key = JsonRpcKey(name, config, secrets)
    try:
        await key.check()
    except BaseException:
        await key.close()
        raise
    return key


class JsonRpcKey:
    """Connections to one program."""

    __slots__ = ("_link", "_method", "address", "key_id")

    def __init__(self, name: str, config: Config, secrets: Secrets) -> None:
        self.key_id, self.address, self._method = name, config.address, config.typed_method
        self._link = link_of(config, secrets)

    @property
    def custody(self) -> Custody:
        return CUSTODY

    async def signature(self, preimage: Preimage) -> bytes:
        """As `Key`. Asking again is harmless: without our own bytes around it a signature is of no use to anybody."""
        if isinstance(preimage.source, TypedData):
            refuse_07(preimage.source)
            raw = _bytes(await self._call(self._method, self.address, document(preimage.source)))
            if len(raw) != 65:
                raise SignerError(f"{self._link.url} gave {len(raw)} bytes as a signature, which has 65")
            r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:64], "big")
        else:
            tx = read_transaction(preimage.data)
            answer = await self._call("eth_signTransaction", fields(tx, self.address))
            r, s = read_signature(_bytes(answer.get("raw") if isinstance(answer, dict) else answer), tx)
        return signature_of(preimage.digest, r, s, self.address)

    async def health(self) -> str:
        try:
            await self.check()
        except SignerError as error:
            return str(error)
        return ""

    async def check(self) -> None:
        """Raises SignerError unless it holds the account."""
        found = await self._call("eth_accounts")
        accounts = found[:ACCOUNTS_MAX] if isinstance(found, list) else []
        if address_bytes(self.address).hex() not in {str(one).lower().removeprefix("0x") for one in accounts}:
            held = ", ".join(str(one)[:42] for one in accounts[:3]) or "no account"
            raise SignerError(f"{self._link.url} holds {held}, wallet.address is {self.address}; correct one")

    async def close(self) -> None:
        await self._link.close()

    async def _call(self, method: str, *params: Any) -> Any:
        body = await self._link.post("", {"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        try:
            answer = msgspec.json.decode(body, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError):
            raise SignerError(f"{self._link.url} does not speak JSON-RPC; check wallet.url") from None
        error = answer.get("error")
        if isinstance(error, dict):
            words = " ".join(str(error.get("message")).split())[:120]
            kind = SignerError if error.get("code") in REFUSED else SignerUnavailableError
            raise kind(f"{self._link.url} does not sign: {words}; look at its log")
        return answer.get("result")


def document(typed: TypedData) -> dict[str, Any]:
    """Typed data as wallets take it (EIP-712, the JSON of eth_signTypedData): whole numbers as decimal text."""
    domain = [{"name": name, "type": kind} for name, kind in _DOMAIN.items() if name in typed.domain]
    return {
        "types": {"EIP712Domain": domain, **typed.types},
        "primaryType": typed.primary,
        "domain": _text(typed.domain),
        "message": _text(typed.message),
    }


def fields(tx: Transaction, address: str) -> dict[str, Any]:
    """A transaction as eth_signTransaction takes it."""
    return {
        "type": "0x2",
        "from": address,
        "to": "0x" + tx.to.hex(),
        "chainId": hex(tx.chain_id),
        "nonce": hex(tx.nonce),
        "gas": hex(tx.gas_limit),
        "maxFeePerGas": hex(tx.gas_fee_max),
        "maxPriorityFeePerGas": hex(tx.gas_tip),
        "value": hex(tx.value),
        "data": "0x" + tx.data.hex(),
        "accessList": [],
    }


def _text(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _text(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_text(one) for one in value]
    if isinstance(value, bytes):
        return "0x" + value.hex()
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _bytes(text: object) -> bytes:
    if isinstance(text, str) and text.startswith("0x"):
        try:
            return bytes.fromhex(text[2:])
        except ValueError:
            pass
    raise SignerError("what came back from the signing program is no bytes (0x and hex digits); check wallet.url")
