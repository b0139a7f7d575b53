"""Between a node's JSON and eth-tester's own form of blocks, transactions, receipts and logs (bytes, ints, snake case)."""

from typing import Any

import rlp  # type: ignore[import-untyped]
from eth_utils.address import to_checksum_address

_ZERO_HASH = "0x" + "00" * 32
_IN_NAMES = {
    "gas_price": "gasPrice",
    "max_fee_per_gas": "maxFeePerGas",
    "max_priority_fee_per_gas": "maxPriorityFeePerGas",
    "chain_id": "chainId",
    "data": "input",
}
_SIGNATURE = ("v", "r", "s", "y_parity", "type")


def transaction_in(transaction: dict[str, Any]) -> dict[str, Any]:
    """An unsigned transaction as JSON-RPC wants it."""
    fields: dict[str, Any] = {}
    for key, value in transaction.items():
        if key in _SIGNATURE or (key == "to" and not value):
            continue
        name = _IN_NAMES.get(key, key)
        if key in ("from", "to"):
            fields[name] = to_checksum_address(value)
        elif key == "access_list":
            fields["accessList"] = [
                {"address": to_checksum_address(a), "storageKeys": [f"0x{int(slot):064x}" for slot in slots]} for a, slots in value
            ]
        elif isinstance(value, bytes):
            fields[name] = "0x" + value.hex()
        elif isinstance(value, int):
            fields[name] = hex(value)
    return fields


def raw_transaction(transaction: dict[str, Any]) -> bytes:
    """The bytes of a signed transaction: legacy, EIP-2930 or EIP-1559. Raises KeyError when a field is missing."""
    to, value, data = transaction["to"] or b"", transaction["value"], transaction["data"]
    nonce, gas = transaction["nonce"], transaction["gas"]
    signature = [transaction["v"], transaction["r"], transaction["s"]]
    if "access_list" not in transaction:
        return _rlp([nonce, transaction["gas_price"], gas, to, value, data, *signature])
    access = [[a, [int(slot).to_bytes(32, "big") for slot in slots]] for a, slots in transaction["access_list"]]
    if "max_fee_per_gas" in transaction:
        fees = [transaction["max_priority_fee_per_gas"], transaction["max_fee_per_gas"]]
        return b"\x02" + _rlp([transaction["chain_id"], nonce, *fees, gas, to, value, data, access, *signature])
    price = transaction["gas_price"]
    return b"\x01" + _rlp([transaction["chain_id"], nonce, price, gas, to, value, data, access, *signature])


def transaction_out(found: dict[str, Any]) -> dict[str, Any]:
    """A transaction as eth-tester expects it from a backend."""
    kind = _int(found.get("type", "0x0")) or 0
    out: dict[str, Any] = {
        "type": kind,
        "hash": _bytes(found["hash"]),
        "nonce": _int(found["nonce"]),
        "block_hash": _bytes(found["blockHash"]),
        "block_number": _int(found["blockNumber"]),
        "transaction_index": _int(found["transactionIndex"]),
        "from": _bytes(found["from"]),
        "to": _bytes(found["to"]) or b"",
        "value": _int(found["value"]),
        "gas": _int(found["gas"]),
        "data": _bytes(found["input"]),
        "v": _int(found.get("v", found.get("yParity", "0x0"))),
        "r": _int(found["r"]),
        "s": _int(found["s"]),
    }
    if kind < 2 or "gasPrice" in found:
        out["gas_price"] = _int(found.get("gasPrice"))
    if kind > 0:
        access = found.get("accessList", [])
        out["access_list"] = tuple((_bytes(x["address"]), tuple(_int(slot) for slot in x["storageKeys"])) for x in access)
        out["chain_id"], out["y_parity"] = _int(found["chainId"]), out["v"]
    if kind >= 2:
        out["max_fee_per_gas"] = _int(found["maxFeePerGas"])
        out["max_priority_fee_per_gas"] = _int(found["maxPriorityFeePerGas"])
    return out


def block_out(found: dict[str, Any], full: bool) -> dict[str, Any]:
    """A block as eth-tester expects it from a backend."""
    transactions = found["transactions"]
    return {
        "number": _int(found["number"]),
        "hash": _bytes(found.get("hash") or _ZERO_HASH),
        "parent_hash": _bytes(found["parentHash"]),
        "nonce": _bytes(found.get("nonce") or "0x" + "00" * 8),
        "sha3_uncles": _bytes(found["sha3Uncles"]),
        "logs_bloom": _int(found["logsBloom"]),
        "transactions_root": _bytes(found["transactionsRoot"]),
        "receipts_root": _bytes(found["receiptsRoot"]),
        "state_root": _bytes(found["stateRoot"]),
        "coinbase": _bytes(found["miner"]),
        "difficulty": _int(found["difficulty"]),
        "total_difficulty": 0,
        "mix_hash": _bytes(found["mixHash"]),
        "size": _int(found.get("size")) or 0,
        "extra_data": (_bytes(found["extraData"]) or b"").rjust(32, b"\0"),
        "gas_limit": _int(found["gasLimit"]),
        "gas_used": _int(found["gasUsed"]),
        "timestamp": _int(found["timestamp"]),
        "transactions": [transaction_out(t) if full else _bytes(t if isinstance(t, str) else t["hash"]) for t in transactions],
        "uncles": [],
        "base_fee_per_gas": _int(found["baseFeePerGas"]),
        "withdrawals": [],
        "withdrawals_root": _bytes(found.get("withdrawalsRoot") or _ZERO_HASH),
        "parent_beacon_block_root": _bytes(found.get("parentBeaconBlockRoot") or _ZERO_HASH),
        "blob_gas_used": _int(found.get("blobGasUsed", "0x0")),
        "excess_blob_gas": _int(found.get("excessBlobGas", "0x0")),
        "requests_hash": _bytes(found.get("requestsHash") or _ZERO_HASH),
    }


def receipt_out(found: dict[str, Any]) -> dict[str, Any]:
    """A receipt, without its logs, as eth-tester expects it from a backend."""
    return {
        "block_hash": _bytes(found["blockHash"]),
        "block_number": _int(found["blockNumber"]),
        "contract_address": _bytes(found.get("contractAddress")),
        "cumulative_gas_used": _int(found["cumulativeGasUsed"]),
        "effective_gas_price": _int(found["effectiveGasPrice"]),
        "from": _bytes(found["from"]),
        "gas_used": _int(found["gasUsed"]),
        "state_root": b"\x01" if found["status"] == "0x1" else b"",
        "status": _int(found["status"]),
        "to": _bytes(found["to"]) or b"",
        "transaction_hash": _bytes(found["transactionHash"]),
        "transaction_index": _int(found["transactionIndex"]),
        "type": _int(found["type"]),
    }


def log_out(found: dict[str, Any]) -> dict[str, Any]:
    """A log entry as eth-tester expects it from a backend."""
    return {
        "type": "mined",
        "log_index": _int(found["logIndex"]),
        "transaction_index": _int(found["transactionIndex"]),
        "transaction_hash": _bytes(found["transactionHash"]),
        "block_hash": _bytes(found["blockHash"]),
        "block_number": _int(found["blockNumber"]),
        "address": _bytes(found["address"]),
        "data": _bytes(found["data"]),
        "topics": [_bytes(topic) for topic in found["topics"]],
    }


def _rlp(fields: list[Any]) -> bytes:
    return bytes(rlp.encode(fields))


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text[2:])


def _int(text: str | None) -> int | None:
    return None if text is None else int(text, 16)
