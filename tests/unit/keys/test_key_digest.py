"""Digests and transactions are byte for byte those of eth-account, over random types, values and transactions."""

import random
import string
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import _hash_eip191_message, encode_typed_data
from eth_account.typed_transactions import TypedTransaction

from agent.domain.errors import SignerError
from agent.domain.plan import TypedData
from agent.keys.digest import (
    Transaction,
    address_bytes,
    checksum,
    keccak,
    transaction_digest,
    transaction_fields,
    transaction_raw,
    typed_digest,
)

KEY = bytes.fromhex("11" * 32)
ROUNDS = 400


def typed(types: dict[str, Any], primary: str, message: dict[str, Any], domain: dict[str, Any] | None = None) -> TypedData:
    return TypedData("t", domain or {"name": "D", "chainId": 1}, types, primary, message)


def one(kind: str, value: object) -> TypedData:
    return typed({"T": [{"name": "x", "type": kind}]}, "T", {"x": value})


def expected(data: TypedData) -> bytes:
    return bytes(_hash_eip191_message(encode_typed_data(data.domain, data.types, data.message)))


class Maker:
    """Random typed data: a tree of structs (later ones use earlier ones), and values that fit it."""

    def __init__(self, seed: int) -> None:
        self.r = random.Random(seed)

    def domain(self) -> dict[str, Any]:
        whole = {
            "name": self.text(),
            "version": self.text(),
            "chainId": self.r.randrange(2**256),
            "verifyingContract": checksum(self.r.randbytes(20)),
            "salt": "0x" + self.r.randbytes(32).hex(),
        }
        kept = self.r.sample(sorted(whole), self.r.randint(1, 5))
        return {name: whole[name] for name in kept}

    def text(self) -> str:
        return "".join(self.r.choice(string.printable + "äß€😀中") for _ in range(self.r.randint(0, 40)))

    def atom(self) -> str:
        bits = 8 * self.r.randint(1, 32)
        sized = f"bytes{self.r.randint(1, 32)}"
        return self.r.choice([f"uint{bits}", f"int{bits}", sized, "address", "bool", "string", "bytes"])

    def types(self) -> tuple[dict[str, list[dict[str, str]]], str]:
        names = [f"S{i}{self.r.choice('abZ')}" for i in range(self.r.randint(1, 5))]
        made: dict[str, list[dict[str, str]]] = {}
        for at, name in enumerate(names):
            kinds = [self.atom() for _ in range(self.r.randint(0 if at else 1, 4))]
            kinds += [names[at - 1]] * (at > 0)  # every struct is used, so that eth-account finds the same root
            kinds += [self.r.choice(names[: at or 1])] * (at > 1 and self.r.random() < 0.5)
            made[name] = [{"name": f"f{i}", "type": self.arrayed(kind)} for i, kind in enumerate(kinds)]
        order = self.r.sample(names, len(names))
        return {name: made[name] for name in order}, names[-1]

    def arrayed(self, kind: str) -> str:
        while self.r.random() < 0.25:
            kind += self.r.choice(["[]", "[2]", "[3]"])
        return kind

    def value(self, kind: str, types: dict[str, Any]) -> Any:
        if kind.endswith("]"):
            inner, _, size = kind[:-1].rpartition("[")
            return [self.value(inner, types) for _ in range(int(size) if size else self.r.randint(0, 3))]
        if kind in types:
            return {field["name"]: self.value(field["type"], types) for field in types[kind]}
        return self.leaf(kind)

    def leaf(self, kind: str) -> Any:
        if kind == "address":
            return self.r.choice([checksum, lambda raw: "0x" + raw.hex()])(self.r.randbytes(20))
        if kind == "bool":
            return self.r.random() < 0.5
        if kind == "string":
            return self.text()
        if kind.startswith("bytes"):
            raw = self.r.randbytes(int(kind[5:] or self.r.randint(0, 100)))
            return raw if self.r.random() < 0.5 else "0x" + raw.hex()
        bits = int(kind.lstrip("uint"))
        low, high = (0, 2**bits - 1) if kind[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        number = self.r.choice([low, high, 0, self.r.randint(low, high)])
        return number if self.r.random() < 0.7 else str(number)


def test_typed_data_matches_eth_account() -> None:
    for seed in range(ROUNDS):
        maker = Maker(seed)
        types, primary = maker.types()
        data = typed(types, primary, maker.value(primary, types), maker.domain())
        assert typed_digest(data) == expected(data), (seed, data)


def test_transactions_match_eth_account() -> None:
    r = random.Random(1559)
    account = Account.from_key(KEY)
    for _ in range(ROUNDS):
        fee = r.choice([0, 1, 127, 128, r.randrange(2**64), r.randrange(2**200)])
        to, data = r.randbytes(20), r.randbytes(r.choice([0, 1, 1, 54, 55, 56, 57, 255, 256, 3000]))
        data = b"\x00" if data and r.random() < 0.05 else data
        tx = Transaction(
            chain_id=r.choice([1, 10, 127, 128, 31337, 2**63]),
            nonce=r.choice([0, 1, 127, 128, r.randrange(2**63)]),
            gas_tip=r.randint(0, fee),
            gas_fee_max=fee,
            gas_limit=r.choice([21_000, 1, r.randrange(1, 2**63)]),
            to=to,
            value=r.choice([0, 1, 128, r.randrange(2**256)]),
            data=data,
        )
        names = {"chainId": tx.chain_id, "nonce": tx.nonce, "maxPriorityFeePerGas": tx.gas_tip, "maxFeePerGas": fee}
        plain = {"type": 2, **names, "gas": tx.gas_limit, "to": checksum(to), "value": tx.value, "data": "0x" + data.hex()}
        fields = transaction_fields(tx)
        assert transaction_digest(fields) == bytes(TypedTransaction.from_dict(plain).hash())
        signed = account.sign_transaction(plain)
        signature = signed.r.to_bytes(32, "big") + signed.s.to_bytes(32, "big") + bytes((27 + signed.v,))
        raw = transaction_raw(fields, signature)
        assert raw == bytes(signed.raw_transaction)
        assert keccak(raw) == bytes(signed.hash)


def test_the_example_of_the_standard() -> None:
    """EIP-712's own example (Mail, Cow to Bob) gives the digest that the standard prints."""
    person = [{"name": "name", "type": "string"}, {"name": "wallet", "type": "address"}]
    mail = [{"name": "from", "type": "Person"}, {"name": "to", "type": "Person"}, {"name": "contents", "type": "string"}]
    domain = {"name": "Ether Mail", "version": "1", "chainId": 1, "verifyingContract": "0x" + "Cc" * 20}
    domain["verifyingContract"] = "0x" + "cc" * 20
    cow = {"name": "Cow", "wallet": "0xCD2a3d9F938E13CD947Ec05AbC7FE734Df8DD826"}
    bob = {"name": "Bob", "wallet": "0xbBbBBBBbbBBBbbbBbbBbbbbBBbBbbbbBbBbbBBbB"}
    data = typed({"Person": person, "Mail": mail}, "Mail", {"from": cow, "to": bob, "contents": "Hello, Bob!"}, domain)
    assert typed_digest(data).hex() == "be609aee343fb3c4b28e1df9e632fca64fcfaede20f02e86244efddf30957bd2"


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("uint160", 2**160),
        ("uint48", 2**48),
        ("uint8", -1),
        ("int8", 128),
        ("int8", -129),
        ("uint256", 2**256),
        ("uint256", True),
        ("uint256", 1.0),
        ("uint256", "0x10"),
        ("uint256", "1e3"),
        ("uint256", "٣"),
        ("uint256", None),
        ("bytes4", b"abc"),
        ("bytes4", b"abcde"),
        ("bytes32", 7),
        ("bytes", "text"),
        ("bytes", "0xzz"),
        ("address", "0x12"),
        ("address", "0x" + "zz" * 20),
        ("address", "0xCD2a3d9F938E13CD947Ec05AbC7FE734Df8DD827"),
        ("address", bytes(19)),
        ("bool", 1),
        ("bool", "false"),
        ("string", b"bytes"),
        ("string", "\ud800"),
        ("uint8[2]", [1]),
        ("uint8[]", "12"),
        ("uint8[]", [0] * 1_001),
        ("uint7", 1),
        ("uint264", 1),
        ("uint08", 1),
        ("uint", 1),
        ("bytes33", bytes(33)),
        ("bytes0", b""),
        ("Unknown", {}),
        ("uint8[][][][][][][][][][][][][][][][][]", []),
    ],
)
def test_what_does_not_fit_is_refused(kind: str, value: object) -> None:
    with pytest.raises(SignerError, match=r"^typed data|is not an address|wrong checksum"):
        typed_digest(one(kind, value))


@pytest.mark.parametrize(
    "data",
    [
        typed({"T": [{"name": "x", "type": "uint8"}]}, "T", {}),
        typed({"T": [{"name": "x", "type": "uint8"}]}, "T", {"x": 1, "y": 2}),
        typed({"T": [{"name": "x", "type": "uint8"}]}, "U", {"x": 1}),
        typed({"T": [{"name": "x", "type": "T[]"}]}, "T", {"x": []}),
        typed({"T": [{"name": "x", "type": "uint8"}] * 2}, "T", {"x": 1}),
        typed({"T": [{"name": "x)", "type": "uint8"}]}, "T", {"x)": 1}),
        typed({"T": [{"name": "x"}]}, "T", {"x": 1}),
        typed({"T": [{"name": ["x"], "type": "uint8"}]}, "T", {"x": 1}),
        typed({"T": [], "EIP712Domain": []}, "T", {}),
        typed({"T": []}, "T", {}, {"name": "D", "colour": "red"}),
        typed({"T": []}, "T", {}, {"name": ["D"]}),
        typed({"T": []}, "T", {}, {"chainId": -1}),
    ],
)
def test_malformed_types_are_refused(data: TypedData) -> None:
    with pytest.raises(SignerError):
        typed_digest(data)


def test_a_changed_type_does_not_borrow_the_old_encoder() -> None:
    data = one("uint8", 1)
    before = typed_digest(data)
    data.types["T"][0]["type"] = "uint16"
    assert typed_digest(data) == expected(data) != before


@pytest.mark.parametrize(
    "change",
    [
        {"chain_id": 0},
        {"chain_id": 2**64},
        {"nonce": -1},
        {"nonce": 2**64 - 1},
        {"nonce": True},
        {"nonce": 1.0},
        {"gas_limit": 0},
        {"gas_limit": 2**64},
        {"gas_fee_max": 2**256},
        {"gas_tip": 11},
        {"value": 2**256},
        {"value": -1},
        {"to": b""},
        {"to": bytes(19)},
    ],
)
def test_transaction_widths_are_checked(change: dict[str, Any]) -> None:
    whole: dict[str, Any] = {"chain_id": 1, "nonce": 0, "gas_tip": 1, "gas_fee_max": 10, "gas_limit": 21_000}
    with pytest.raises(SignerError, match=r"^transaction: "):
        transaction_fields(Transaction(**{**whole, "to": bytes(20), "value": 0, "data": b"", **change}))


def test_addresses_in_lower_upper_and_checksum_case() -> None:
    text = "0xCD2a3d9F938E13CD947Ec05AbC7FE734Df8DD826"
    raw = address_bytes(text)
    assert checksum(raw) == text
    assert address_bytes(text.lower()) == address_bytes("0x" + text[2:].upper()) == raw
