"""What a vault asks of its chain, and how its transaction gets there: made with a bound on fees, kept before it leaves, sent once.

The same bytes may be sent again, which changes nothing; others for the same purpose are made only when these cannot happen now.
"""

import re
from collections.abc import Sequence
from typing import Any, Literal

from agent.domain.errors import ChainError, OutcomeUnknown, SignatureUnknownError, SignerError, SignerUnavailableError
from agent.domain.plan import Call, Calls, SignedTransaction
from agent.keys.bounds import exact
from agent.keys.digest import address_bytes, checksum, keccak
from agent.keys.tickets import Filed, Tickets
from agent.ports import Chain, Clock, Signer

Fate = Literal["done", "failed", "replaced", ""]

TIP_WEI = 10**9
LOOK_S, MINED_S = 0.5, 120
_HASH = re.compile(r"0x[0-9a-f]{64}", re.ASCII)
GWEI = 10**9


async def asked(chain: Chain, method: str, *params: Any) -> Any:
    """One read. Raises SignerUnavailableError when the node says no or is away: nothing happened."""
    try:
        return await chain.call(method, *params)
    except ChainError as error:
        raise SignerUnavailableError(str(error)) from None


async def number(chain: Chain, method: str, *params: Any) -> int:
    return _whole(await asked(chain, method, *params))


async def view(chain: Chain, to: str, signature: str, kinds: Sequence[str], *words: bytes) -> tuple[Any, ...]:
    """What a contract answers to a call whose arguments are whole words. Raises SignerUnavailableError."""
    data = keccak(signature.encode())[:4] + b"".join(words)
    raw = await asked(chain, "eth_call", {"to": checksum(address_bytes(to)), "data": "0x" + data.hex()}, "latest")
    try:
        return exact(tuple(kinds), bytes.fromhex(str(raw)[2:]), signature)
    except (SignerError, ValueError):
        raise SignerUnavailableError(f"{to} does not answer {signature} as it should; check the address and the chain") from None


def hash_text(value: object) -> str:
    """A transaction's hash as somebody else tells it; empty when it is none."""
    return value if isinstance(value, str) and _HASH.fullmatch(value) else ""


def word(address: str) -> bytes:
    return address_bytes(address).rjust(32, b"\0")


async def fees(chain: Chain, gas_fee_max: int) -> tuple[int, int]:
    """(the most, the tip) per gas in wei, as of now. Raises SignerUnavailableError when that is more than `gas_fee_max`."""
    block = await asked(chain, "eth_getBlockByNumber", "latest", False)
    base_fee = _whole(block.get("baseFeePerGas", "0x0") if isinstance(block, dict) else None)
    tip = min(TIP_WEI, gas_fee_max)
    fee = 2 * base_fee + tip
    if fee > gas_fee_max:
        raise SignerUnavailableError(f"gas costs {-(-fee // GWEI)} gwei, the most is {gas_fee_max // GWEI}; wait or raise it")
    return fee, tip


async def mined(chain: Chain, clock: Clock, tx_hash: str) -> None:
    """Wait for its block. Raises SignerError when it failed there, SignatureUnknownError when it is in none in time."""
    until_ns = clock.now_ns() + MINED_S * 10**9
    while clock.now_ns() < until_ns:
        receipt = await asked(chain, "eth_getTransactionReceipt", tx_hash)
        if isinstance(receipt, dict):
            if receipt.get("status") != "0x1":
                raise SignerError(f"{tx_hash} failed in its block; look at it there")
            return
        await clock.sleep(LOOK_S)
    raise SignatureUnknownError(f"{tx_hash} was sent and is in no block after {MINED_S} s; look for it before trying again")


async def made(chain: Chain, sender: str, call: Call, gas_fee_max: int, order_id: str) -> Calls:
    """One call as a transaction of `sender`: the next number, fees of now. Raises SignerUnavailableError when it would fail now."""
    fee, tip = await fees(chain, gas_fee_max)
    fields = {"from": sender, "to": call.to, "value": hex(call.value), "data": "0x" + call.data.hex()}
    gas = await number(chain, "eth_estimateGas", fields)
    nonce = await number(chain, "eth_getTransactionCount", sender, "pending")
    return Calls(order_id, chain.chain_id, (call,), (), nonce, gas + gas // 4, fee, tip)


async def sent(chain: Chain, tickets: Tickets, one: Filed, calls: Calls, signer: Signer) -> Filed:
    """Sign and send. The bytes are on the disk before they leave. A certain refusal leaves the ticket ready, with the reason."""
    signed = await signer.sign(calls)
    if not isinstance(signed, SignedTransaction):
        raise SignerError(f"{signer.key_id} did not sign a transaction; stop and check what answers for it")
    return await sent_raw(chain, tickets, one, signed.raw, signed.tx_hash, signed.sender, signed.nonce)


async def sent_raw(
    chain: Chain, tickets: Tickets, one: Filed, raw: bytes, tx_hash: str, sender: str, nonce: int, *, is_kept: bool = False
) -> Filed:
    """As `sent`, for bytes that were signed elsewhere. `is_kept`: they cannot be had again, and stay when a node refuses them."""
    notes = {"raw": raw.hex(), "sender": sender, "nonce": str(nonce)}
    one = tickets.moved(one, "sent", "it is on its way", tx_hash, **notes)
    try:
        await chain.send_raw(raw)
    except ChainError as error:
        return tickets.moved(one, "ready", str(error), raw=raw.hex() if is_kept else "")
    except OutcomeUnknown as error:
        return tickets.moved(one, "sent", str(error))
    return one


async def fate(chain: Chain, one: Filed) -> Fate:
    """Of what was sent: `done`, `failed`, `replaced` (its number was used by another), or empty while it waits."""
    sender, nonce = one.notes["sender"], int(one.notes["nonce"])
    used = await number(chain, "eth_getTransactionCount", sender, "latest") > nonce
    receipt = await asked(chain, "eth_getTransactionReceipt", one.ticket.tx_hash)
    if isinstance(receipt, dict):
        return "done" if receipt.get("status") == "0x1" else "failed"
    if used:
        return "replaced"
    try:
        await chain.send_raw(bytes.fromhex(one.notes["raw"]))
    except (ChainError, OutcomeUnknown):
        return ""  # it may be known there already; the next look tells
    return ""


def _whole(value: object) -> int:
    try:
        return int(str(value), 16)
    except ValueError:
        raise SignerUnavailableError("the node answered with something that is no number; use another RPC") from None
