"""Signing: EIP-712 orders, EIP-1559 transactions and HMAC, beside eth-account and ccxt, byte-identical before they are timed.

Amounts and nonces are drawn from a seed, and answers are compared before anything is timed. Ours counts all that the signer does
before a signature leaves it, its check by recovering its own key included. "HMAC alone" is the keyed object that `VenueKey` owns,
without the rest of it; the last row is all of it: the payload read back, compared with the order that was approved, authenticated.
"""

import asyncio
import hashlib
import hmac
import random
from collections.abc import Callable, Iterator
from typing import Any

import ccxt
from eth_account import Account

from agent.domain.plan import TypedData, VenueRequest
from agent.keys.digest import Transaction, checksum, transaction_digest, transaction_fields, transaction_raw, typed_digest
from agent.keys.local import LocalSigner
from agent.keys.policy import PERMIT_TYPES
from agent.keys.secrets import Secret
from agent.keys.venue_key import VenueKey
from benchmarks.measure import Result, alternately, beside, calls_of

KEY = "0x" + "11" * 32
TOKEN, ROUTER, PERMIT2 = "0x" + "0a" * 20, "0x" + "0b" * 20, "0x" + "0c" * 20
DOMAIN: dict[str, str | int] = {"name": "Permit2", "chainId": 31_337, "verifyingContract": PERMIT2}
SECRET = "k" * 64
SEED, ROUNDS, CALLS = 5, 31, 100  # the first round warms up; 3,100 messages, 3,000 counted

Sign = Callable[[Any], object]


def run(rounds: int = ROUNDS, calls: int = CALLS) -> list[Result]:
    chance = random.Random(SEED)
    account, signer = Account.from_key(KEY), LocalSigner(bytearray.fromhex(KEY[2:]))
    count = rounds * calls
    try:
        permits = [_permit(chance) for _ in range(count)]
        transactions = [_transaction(chance) for _ in range(count)]
        pairs = [(one, _theirs(one)) for one in transactions]
        return [
            _compared("EIP-712: Permit2 permit", permits, _typed(signer), {"eth-account": _eth_typed(account)}, calls),
            _compared("EIP-1559 transaction, 1,200 bytes", pairs, _raw(signer), {"eth-account": _eth_raw(account)}, calls),
            *_hmac(chance, count, calls),
        ]
    finally:
        signer.close()


def _compared(
    what: str, messages: list[Any], ours: Sign, peers: dict[str, Sign], calls: int, before: Callable[[int], object] = int
) -> Result:
    """First the answers, then the times; one row for one peer. `before` gets the number of a turn's first message."""
    ((name, peer),) = peers.items()
    before(0)
    for message in messages[:calls]:
        assert ours(message) == peer(message), f"{what}: {name} signs something else"
    sides = {"ours": ours, name: peer}

    def rounds() -> Iterator[dict[str, Callable[[], list[int]]]]:
        for start in range(0, len(messages), calls):
            before(start)
            yield {side: _turn(sign, messages[start : start + calls]) for side, sign in sides.items()}

    found = alternately(rounds())
    return beside(what, found["ours"], name, found[name])


def _turn(sign: Sign, part: list[Any]) -> Callable[[], list[int]]:
    waiting = iter(part)
    return calls_of(lambda: sign(next(waiting)), len(part))


# -- on chain ----------------------------------------------------------------------------------------------------------


def _permit(chance: random.Random) -> TypedData:
    details = {"token": TOKEN, "amount": chance.getrandbits(120), "expiration": 2_000_000_000, "nonce": chance.getrandbits(40)}
    message: dict[str, object] = {"details": details, "spender": ROUTER, "sigDeadline": 2_000_000_000 + chance.getrandbits(20)}
    return TypedData("i-0", DOMAIN, PERMIT_TYPES, "PermitSingle", message)


def _typed(signer: LocalSigner) -> Sign:
    return lambda permit: signer._sign_digest(typed_digest(permit))


def _eth_typed(account: Any) -> Sign:
    types = {name: list(fields) for name, fields in PERMIT_TYPES.items()}
    return lambda permit: bytes(account.sign_typed_data(DOMAIN, types, permit.message).signature)


def _transaction(chance: random.Random) -> Transaction:
    tip = chance.getrandbits(32)
    return Transaction(
        31_337, chance.getrandbits(20), tip, tip + 3 * 10**9, 600_000, bytes.fromhex(TOKEN[2:]), 0, chance.randbytes(1_200)
    )


def _theirs(tx: Transaction) -> dict[str, object]:
    fees = {"maxPriorityFeePerGas": tx.gas_tip, "maxFeePerGas": tx.gas_fee_max, "gas": tx.gas_limit}
    to = {"to": checksum(tx.to), "value": tx.value, "data": tx.data}
    return {"type": 2, "chainId": tx.chain_id, "nonce": tx.nonce, **fees, **to}


def _raw(signer: LocalSigner) -> Sign:
    def sign(pair: tuple[Transaction, dict[str, object]]) -> bytes:
        fields = transaction_fields(pair[0])
        return transaction_raw(fields, signer._sign_digest(transaction_digest(fields)))

    return sign


def _eth_raw(account: Any) -> Sign:
    return lambda pair: bytes(account.sign_transaction(pair[1]).raw_transaction)


# -- on an exchange ----------------------------------------------------------------------------------------------------


def _hmac(chance: random.Random, count: int, calls: int) -> Iterator[Result]:
    orders = [_order(chance, number) for number in range(count)]
    payloads = [payload for _, payload in orders]
    secret = SECRET.encode()
    keyed = hmac.new(secret, digestmod="sha256")

    def ours(payload: bytes) -> str:
        mine = keyed.copy()
        mine.update(payload)
        return mine.hexdigest()

    yield _compared(
        "HMAC alone, of an order",
        payloads,
        ours,
        {"hmac.new": lambda payload: hmac.new(secret, payload, hashlib.sha256).hexdigest()},
        calls,
    )
    theirs = {"ccxt Exchange.hmac": lambda payload: ccxt.Exchange.hmac(payload, secret, hashlib.sha256)}
    yield _compared("HMAC alone, of an order", payloads, ours, theirs, calls)
    key = _Approving(orders, calls)
    yield _compared("HMAC of an approved order, all checks", payloads, key.hmac, theirs, calls, key.approve)


def _order(chance: random.Random, number: int) -> tuple[VenueRequest, bytes]:
    fields = {
        "symbol": "ETHUSDT", "side": "SELL", "type": "LIMIT", "timeInForce": "IOC", "newClientOrderId": f"i-{number}",
        "quantity": f"{chance.randint(1, 9_999)}.{chance.randint(0, 9_999):04}", "price": f"{chance.randint(2_000, 3_000)}.41",
    }  # fmt: skip
    text = "&".join(f"{name}={value}" for name, value in fields.items())
    envelope = "&recvWindow=5000&timestamp=1723161254024&apiKey=" + "a" * 64
    return VenueRequest(f"i-{number}", "binance", "place", tuple(fields.items())), (text + envelope).encode()


class _Approving:
    """A payload leaves once, and few orders wait at a time: so each turn has a key of its own, with its orders approved."""

    def __init__(self, orders: list[tuple[VenueRequest, bytes]], calls: int) -> None:
        self._orders, self._calls = orders, calls

    def approve(self, start: int) -> None:
        self._key = VenueKey("x", "binance", "a" * 64, Secret(SECRET))

        async def approve() -> None:
            for request, _ in self._orders[start : start + self._calls]:
                await self._key.sign(request)

        asyncio.run(approve())

    def hmac(self, payload: bytes) -> str:
        return self._key.hmac_sha256_hex(payload)
