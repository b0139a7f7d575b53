"""Between JSON-RPC and eth-tester: parameters in, results and reverts out, in the form in which nodes write them."""

import ast
from collections.abc import Callable, Mapping
from typing import Any

from eth_abi.abi import encode

_ERROR_STRING = bytes.fromhex("08c379a0")  # selector of Error(string)
_TRANSACTION_METHODS = ("eth_call", "eth_estimateGas", "eth_sendTransaction")
_BLOCK_ARGUMENT = {"eth_call": 1, "eth_getBalance": 1, "eth_getCode": 1, "eth_getTransactionCount": 1}
_MINED_NAMES = ("latest", "pending", "earliest", "safe", "finalized")


class MethodMissingError(Exception):
    """The chain has no such method."""


def prepare_params(method: str, params: list[Any], number_of: Callable[[Any], int]) -> list[Any]:
    """Write a node's parameters as eth-tester wants them. Raises MethodMissingError for state overrides."""
    if method in _TRANSACTION_METHODS:
        if len(params) > 2:
            raise MethodMissingError(f"{method} with state overrides is not supported by this chain")
        params[0] = _transaction(params[0])
    if method == "eth_estimateGas":
        params = params[:1]
    if method == "eth_getLogs":
        params[0] = _filter(params[0], number_of)
    if method == "eth_getStorageAt":
        slot = int(params[1], 16) if isinstance(params[1], str) else params[1]
        return [params[0], slot, *[_block(block) for block in params[2:]]]
    place = _BLOCK_ARGUMENT.get(method)
    if place is not None and len(params) <= place:
        params = [*params, "latest"]
    return params


def to_json(method: str, value: Any) -> Any:
    """A result as JSON: whole numbers as 0x quantities, bytes as 0x data."""
    written = _value(value)
    if method.startswith("eth_getBlockBy") and isinstance(value, dict):
        written["logsBloom"] = f"0x{int(value['logsBloom']):0512x}"
        if written["transactions"] and isinstance(written["transactions"][0], dict):
            written["transactions"] = [_named(transaction) for transaction in written["transactions"]]
    if method == "eth_getTransactionReceipt" and isinstance(written, dict):
        written.pop("state_root", None)
        written["logs"] = [_log(log) for log in written["logs"]]
        written.setdefault("logsBloom", "0x" + "00" * 256)
    if method == "eth_getLogs":
        return [_log(log) for log in written]
    if method == "eth_getStorageAt":
        return f"0x{int(written, 16):064x}"
    return written


def revert_data(error: Exception) -> tuple[str, str]:
    """The message and the payload (0x...) of a reverted call.

    eth-tester hands the payload over as text, decoded already when it was Error(string); it is put together again.
    """
    origin: Any = error.__context__ or error
    first: Any = origin.args[0] if origin.args else ""
    while isinstance(first, Exception):
        first = first.args[0] if first.args else ""
    if isinstance(first, str) and first[:2] in ("b'", 'b"'):
        first = ast.literal_eval(first)
    if isinstance(first, bytes):
        return "execution reverted", "0x" + first.hex()
    text = str(first).removeprefix("execution reverted: ")
    return f"execution reverted: {text}", "0x" + (_ERROR_STRING + encode(["string"], [text])).hex()


def _transaction(fields: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in fields.items() if key not in ("type", "input") and value is not None}
    if (data := fields.get("input")) is not None:
        kept["data"] = data
    return kept


def _filter(fields: dict[str, Any], number_of: Callable[[Any], int]) -> dict[str, Any]:
    if "blockHash" in fields:
        raise MethodMissingError("eth_getLogs by blockHash is not supported by this chain; ask by block number")
    kept = {key: value for key, value in fields.items() if value is not None}
    latest = number_of("latest")
    last = min(number_of(kept.get("toBlock", "latest")), latest)
    return kept | {"fromBlock": min(number_of(kept.get("fromBlock", "latest")), last + 1), "toBlock": last}


def _block(block: Any) -> Any:
    return block if block in _MINED_NAMES or isinstance(block, int) else int(block, 16)


_TRANSACTION_NAMES = {
    "data": "input",
    "block_hash": "blockHash",
    "block_number": "blockNumber",
    "transaction_index": "transactionIndex",
    "gas_price": "gasPrice",
    "max_fee_per_gas": "maxFeePerGas",
    "max_priority_fee_per_gas": "maxPriorityFeePerGas",
    "chain_id": "chainId",
    "access_list": "accessList",
    "y_parity": "yParity",
}


def _log(log: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in log.items() if key != "type"} | {"removed": False}


def _named(transaction: dict[str, Any]) -> dict[str, Any]:
    return {_TRANSACTION_NAMES.get(key, key): value for key, value in transaction.items()}


def _value(value: Any) -> Any:
    match value:
        case bool() | None | str() | float():
            return value
        case int():
            return hex(value)
        case bytes():
            return "0x" + value.hex()
        case Mapping():
            return {key: _value(item) for key, item in value.items()}
        case _:
            return [_value(item) for item in value]
