"""Take back what waits on a chain for one wallet: nothing, sent to oneself, with the same nonce and a higher fee.

For `isthmus kill`. It speaks to the node by itself and not through web3, which takes longer to import than a whole kill may take. A
transaction that is in a block cannot be taken back; one that waits is replaced, and counts as left until a block took either.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import aiohttp
import msgspec

from agent.domain.errors import ChainError, ConfigError, IsthmusError
from agent.domain.plan import Call, Calls, SignedTransaction
from agent.domain.sweep import Sweep, Swept
from agent.ports import Signer

NONCES_MAX = 64
TRIES_MAX = 8  # for a nonce whose price is not known: each try bids half as much again
POLL_S = 0.25
TRANSFER_GAS, GAS_LIMIT_MAX = 21_000, 1_000_000
GWEI = 10**9
ANSWER_BYTES_MAX = 64 << 20
BY_HAND = "replace them in a wallet program, or run it again"
_NETWORK = (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError, UnicodeDecodeError)


class ChainSection(msgspec.Struct, frozen=True):
    """What taking back needs of a venue's section; whatever else stands there does not matter now."""

    rpc_url: str
    chain_id: int
    wallet: str
    private_rpc_url: str = ""
    gas_fee_max_gwei: int = 500
    timeout_s: float = 5


OpenWallet = Callable[[ChainSection], Awaitable[Signer]]


async def take_back(name: str, section: Mapping[str, Any], open_wallet: OpenWallet, sweep: Sweep) -> Swept:
    """Never raises what a node or the settings can cause: the note says what went wrong and what to do instead."""
    tally = _Tally(name)
    try:
        chain = msgspec.convert(dict(section), ChainSection, strict=False)
        async with asyncio.timeout_at(sweep.until_ms / 1_000), aiohttp.ClientSession(trust_env=False) as session:
            node = _Node(session, chain.rpc_url, min(chain.timeout_s, 5.0))
            try:
                await _take_back(node, chain, open_wallet, sweep, tally)
            finally:
                await node.close()
    except msgspec.ValidationError as error:
        return tally.result(f"{error}; correct it in the settings, or {BY_HAND}")
    except TimeoutError:
        sent = f"replaced {len(tally.sent)}, which a block must still take" if tally.sent else "time is up"
        return tally.result(f"{sent}; run it again in a minute")
    except IsthmusError as error:
        return tally.result(f"{error}; {BY_HAND}")
    hidden = "what was sent through private_rpc_url cannot be seen here" if chain.private_rpc_url else ""
    return tally.result(f"{BY_HAND}" if tally.left and not sweep.is_dry else hidden)


class _Tally:
    """What is known so far. `sent`: our replacements by nonce."""

    def __init__(self, name: str) -> None:
        self._name, self._start_s, self.found = name, time.monotonic(), 0
        self.left: int | None = None
        self.sent: dict[int, str] = {}
        self.won = 0

    def result(self, note: str) -> Swept:
        ms = round((time.monotonic() - self._start_s) * 1_000)
        return Swept(self._name, self.found, self.won, self.left, ms, " ".join(note.split()), time.time_ns())


async def _take_back(node: "_Node", chain: ChainSection, open_wallet: OpenWallet, sweep: Sweep, tally: _Tally) -> None:
    found = _whole(await node.call("eth_chainId"))
    if found != chain.chain_id:
        raise ConfigError(f"the node answers for chain {found}, the settings say {chain.chain_id}; correct rpc_url or chain_id")
    mined, last = await _nonces(node, chain)
    tally.found = tally.left = last - mined
    if not tally.left or sweep.is_dry:
        return
    signer = await open_wallet(chain)
    bids = await _bids(node, chain)
    for nonce in range(mined, min(last, mined + NONCES_MAX)):
        tally.sent[nonce] = await _replace(node, chain, signer, nonce, bids)
    while tally.left:
        await asyncio.sleep(POLL_S)
        mined, last = await _nonces(node, chain)
        tally.left = last - mined
    receipts = [await node.call("eth_getTransactionReceipt", tx_hash) for tx_hash in tally.sent.values()]
    tally.won = sum(receipt is not None for receipt in receipts)


async def _nonces(node: "_Node", chain: ChainSection) -> tuple[int, int]:
    """(mined, mined and waiting)."""
    mined = _whole(await node.call("eth_getTransactionCount", chain.wallet, "latest"))
    return mined, max(mined, _whole(await node.call("eth_getTransactionCount", chain.wallet, "pending")))


class _Bids(msgspec.Struct):
    """Per gas, in wei: what a block asks now, and what each waiting transaction of ours offers, where the node tells."""

    base_fee: int
    tip: int
    gas_limit: int
    offered: dict[int, tuple[int, int]]


async def _bids(node: "_Node", chain: ChainSection) -> _Bids:
    block = await node.call("eth_getBlockByNumber", "latest", False)
    base_fee = _whole(block.get("baseFeePerGas", "0x0") if isinstance(block, dict) else None)
    try:
        tip = _whole(await node.call("eth_maxPriorityFeePerGas"))
    except _NodeSaysNoError:
        tip = GWEI
    transfer = {"from": chain.wallet, "to": chain.wallet, "value": "0x0"}
    try:
        gas_limit = min(max(_whole(await node.call("eth_estimateGas", transfer)), TRANSFER_GAS), GAS_LIMIT_MAX)
    except _NodeSaysNoError:
        gas_limit = TRANSFER_GAS
    try:
        waiting = await node.call("eth_getBlockByNumber", "pending", True)
    except _NodeSaysNoError:
        waiting = None
    return _Bids(base_fee, tip, gas_limit, _offered(waiting, chain.wallet.lower()))


def _offered(block: Any, wallet: str) -> dict[int, tuple[int, int]]:
    """nonce -> (fee, tip) of the wallet's transactions in the pending block. What reads oddly is left out."""
    found = {}
    for one in block.get("transactions", ()) if isinstance(block, dict) else ():
        if isinstance(one, dict) and str(one.get("from", "")).lower() == wallet:
            price = one.get("gasPrice", "0x0")
            fee, tip = one.get("maxFeePerGas") or price, one.get("maxPriorityFeePerGas") or price
            found[_whole(one.get("nonce"))] = _whole(fee), _whole(tip)
    return found


async def _replace(node: "_Node", chain: ChainSection, signer: Signer, nonce: int, bids: _Bids) -> str:
    """Outbid by 13 % (nodes ask for 10 to 12.5 %), or more where blocks ask more. Returns the hash of what was sent last."""
    cap = chain.gas_fee_max_gwei * GWEI
    fee, tip = bids.offered.get(nonce, (0, 0))
    fee, tip = max(_up(fee, 113), 2 * bids.base_fee + bids.tip), max(_up(tip, 113), bids.tip)
    for _ in range(TRIES_MAX):
        if fee > cap:
            raise ChainError(f"nonce {nonce} needs more than gas_fee_max_gwei = {chain.gas_fee_max_gwei}; raise it")
        calls = Calls(f"kill-{nonce}", chain.chain_id, (Call(chain.wallet, b""),), (), nonce, bids.gas_limit, fee, min(tip, fee))
        signed = await signer.sign(calls)
        assert isinstance(signed, SignedTransaction), "calls become a transaction"
        try:
            await node.call("eth_sendRawTransaction", "0x" + signed.raw.hex())
        except _NodeSaysNoError as refusal:
            text = str(refusal).lower()
            if "nonce too low" in text or "already known" in text or "already imported" in text:
                return signed.tx_hash
            if "underpriced" not in text:
                raise
            fee, tip = _up(fee, 150), _up(tip, 150)
            continue
        return signed.tx_hash
    raise ChainError(f"nonce {nonce} could not be outbid in {TRIES_MAX} tries")


def _up(value: int, percent: int) -> int:
    """Rounded up: we pay it."""
    return -(-value * percent // 100)


# -- the node ----------------------------------------------------------------------------------------------------------


class _NodeSaysNoError(ChainError):
    """The node understood and refused."""


class _Node:
    """JSON-RPC over HTTP or a WebSocket, one question at a time. Its address may carry a key and is never shown."""

    def __init__(self, session: aiohttp.ClientSession, url: str, timeout_s: float) -> None:
        self._session, self._url, self._timeout_s = session, url, timeout_s
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._count = 0

    async def call(self, method: str, *params: Any) -> Any:
        """Raises _NodeSaysNoError when the node refuses, ChainError when it cannot be reached."""
        self._count += 1
        request = {"jsonrpc": "2.0", "id": self._count, "method": method, "params": list(params)}
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await (self._over_socket(request) if self._url.startswith("ws") else self._over_http(request))
        except aiohttp.InvalidURL:
            raise ConfigError("rpc_url is not an address; correct it in the settings") from None
        except _NETWORK as error:
            raise ChainError(f"the node cannot be reached ({type(error).__name__}); check rpc_url and the network") from None
        if isinstance(answer, dict) and isinstance(problem := answer.get("error"), dict):
            said = "".join(c for c in " ".join(str(problem.get("message", ""))[:400].split()) if c.isprintable())[:120]
            raise _NodeSaysNoError(f"the node refuses {method}: {said}")
        if not isinstance(answer, dict) or "result" not in answer:
            raise ChainError("the node does not speak JSON-RPC; check rpc_url")
        return answer["result"]

    async def close(self) -> None:
        if self._socket is not None:
            await self._socket.close()

    async def _over_http(self, request: Mapping[str, Any]) -> Any:
        async with self._session.post(self._url, json=request, allow_redirects=False) as response:
            body = bytearray()
            async for piece in response.content.iter_any():
                body += piece
                if len(body) > ANSWER_BYTES_MAX:
                    raise aiohttp.ClientPayloadError("too long an answer")
            return msgspec.json.decode(body)

    async def _over_socket(self, request: Mapping[str, Any]) -> Any:
        if self._socket is None:
            patience = aiohttp.ClientWSTimeout(ws_close=POLL_S)
            self._socket = await self._session.ws_connect(self._url, max_msg_size=ANSWER_BYTES_MAX, timeout=patience)
        await self._socket.send_str(msgspec.json.encode(request).decode())
        while True:
            message = await self._socket.receive()
            if message.type is not aiohttp.WSMsgType.TEXT:
                raise aiohttp.ClientConnectionError("the socket was closed")
            answer = msgspec.json.decode(message.data)
            if isinstance(answer, dict) and answer.get("id") == request["id"]:
                return answer


def _whole(value: object) -> int:
    """A JSON-RPC quantity. Raises ChainError for anything else."""
    if isinstance(value, str) and value.startswith("0x") and len(value) <= 66:
        try:
            return int(value, 16)
        except ValueError:
            pass
    raise ChainError("the node answered with something that is not a number; use another RPC")
