"""`kind = "ledger"`: a key in a Ledger device, which shows what it signs and asks a person for each signature.

Transactions are given whole, and the device reads them itself; of typed data it is given the two hashes that it shows, so compare
them with those of the request. Blind signing must be allowed in its Ethereum app for both. USB needs `isthmus[ledger]`. No device
was at hand: this follows the published protocol, and was tried against a model written from it. Sources: LedgerHQ app-ethereum,
doc/ethapp.adoc (APDUs); Ledger's HID framing; Speculos, `--apdu-port` (TCP).
"""

import asyncio
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal, Protocol
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from agent.domain.errors import IsthmusError, SecretError, SignerError, SignerUnavailableError
from agent.domain.plan import TypedData
from agent.keys.accounts.erc4337 import refuse_07
from agent.keys.digest import checksum, domain_separator, struct_hash
from agent.keys.http import HERE
from agent.keys.remote import Key, signature_of
from agent.keys.secrets import Secrets
from agent.keys.section import Section
from agent.keys.steps import Preimage
from agent.ports import Custody

CUSTODY = Custody("ledger", "cold", "people")
NEEDS = "a Ledger over USB needs hidapi; run: pip install 'isthmus[ledger]'"
CLA, GET_ADDRESS, SIGN, SIGN_TYPED = 0xE0, 0x02, 0x04, 0x0C
FIRST, MORE = 0x00, 0x80
CHUNK = 255
OK = 0x9000
VENDOR = 0x2C97
PACKET, CHANNEL, TAG = 64, 0x0101, 0x05
ANSWER_BYTES_MAX = 512
READING_S = 115.0  # less than the patience with people, so that the reason is told
HARDENED = 0x80000000
PATH_MAX = 10

REFUSALS: Final = {
    # status word -> what it means, and what to do
    0x6985: "its owner said no",
    0x6982: "its owner said no, or it is locked",
    0x6A80: "it does not take these bytes; allow blind signing in its Ethereum app",
    0x6A84: "it has no room for this; ask for less at once",
}
AWAY: Final = {
    0x5515: "it is locked; unlock it",
    0x6B0C: "it is locked; unlock it",
    0x6D00: "its Ethereum app is not open; open it",
    0x6E00: "its Ethereum app is not open; open it",
    0x6E01: "its Ethereum app is not open; open it",
    0x6511: "its Ethereum app is not open; open it",
}


class Config(Section):
    """`path`: which key of the device, by BIP-32. `transport`: hid, or tcp://HOST:PORT on this machine (Speculos)."""

    kind: Literal["ledger"] = "ledger"
    path: str = "44'/60'/0'/0/0"
    transport: str = Field(default="hid", pattern=r"^(hid|tcp://.+)$")

    @field_validator("path")
    @classmethod
    def _is_path(cls, value: str) -> str:
        path_bytes(value)
        return value

    @field_validator("transport")
    @classmethod
    def _is_here(cls, value: str) -> str:
        parts = urlsplit(value) if value != "hid" else None
        if parts is not None and (parts.hostname not in HERE or not parts.port):
            raise ValueError("a device is reached over hid, or at tcp://127.0.0.1:PORT on this machine")
        return value


class Transport(Protocol):
    """A way to a device: one APDU there, its answer back. Raises OSError when the device is away."""

    def exchange(self, apdu: bytes) -> bytes: ...

    def close(self) -> None: ...


async def open_key(name: str, config: Config, secrets: Secrets) -> Key:  # noqa: ARG001 - every kind is opened alike
    """Raises SecretError without the library, SignerUnavailableError without the device, SignerError when it has another key."""
    key = LedgerKey(name, config)
    await key.check()
    return key


class LedgerKey:
    """A device is opened for each request, so that it may be unplugged in between. One request at a time."""

    __slots__ = ("_config", "_turn", "address", "key_id")

    def __init__(self, name: str, config: Config) -> None:
        self.key_id, self.address, self._config = name, config.address, config
        self._turn = asyncio.Lock()

    @property
    def custody(self) -> Custody:
        return CUSTODY

    async def signature(self, preimage: Preimage) -> bytes:
        """As `Key`. Asking again shows it to its owner again."""
        if isinstance(preimage.source, TypedData):
            refuse_07(preimage.source)
        raw = await self._run(sign_apdus(self._config.path, preimage))
        if len(raw) != 65:
            raise SignerError(f"the device gave {len(raw)} bytes as a signature, which has 65")
        return signature_of(preimage.digest, int.from_bytes(raw[1:33], "big"), int.from_bytes(raw[33:], "big"), self.address)

    async def health(self) -> str:
        try:
            await self.check()
        except IsthmusError as error:
            return str(error)
        return ""

    async def check(self) -> None:
        """Raises SignerError unless the device has the key of the settings. It asks nobody for that."""
        found = read_address(await self._run([apdu(GET_ADDRESS, 0, path_bytes(self._config.path))]))
        if found != self.address:
            raise SignerError(f"the device has {found} at {self._config.path}, wallet.address is {self.address}; correct one")

    async def close(self) -> None:
        """Nothing is kept open."""

    async def _run(self, apdus: Iterable[bytes]) -> bytes:
        async with self._turn:
            return await asyncio.to_thread(self._exchanged, list(apdus))

    def _exchanged(self, apdus: list[bytes]) -> bytes:
        """The answer to the last. A device gives its signature to who asked and nobody else, so one that is late is nobody's."""
        try:
            transport = opened(self._config.transport)
        except OSError:
            raise SignerUnavailableError("no Ledger is there; plug it in, unlock it, and open its Ethereum app") from None
        try:
            answer = b""
            for one in apdus:
                answer = checked(transport.exchange(one))
        except TimeoutError:
            raise SignerUnavailableError("nobody pressed a button of the Ledger; ask again when somebody is there") from None
        except OSError:
            raise SignerUnavailableError("the Ledger went away; plug it in again") from None
        else:
            return answer
        finally:
            transport.close()


# -- APDUs -------------------------------------------------------------------------------------------------------------


def apdu(instruction: int, p1: int, data: bytes) -> bytes:
    """CLA, INS, P1, P2, length, data."""
    return bytes((CLA, instruction, p1, 0, len(data))) + data


def sign_apdus(path: str, preimage: Preimage) -> Iterator[bytes]:
    """What a device is told to sign. Each is answered with a status; the last with v, r and s."""
    source = preimage.source
    if isinstance(source, TypedData):
        yield apdu(SIGN_TYPED, FIRST, path_bytes(path) + domain_separator(source.domain) + struct_hash(source))
        return
    whole = path_bytes(path) + preimage.data
    for at in range(0, len(whole), CHUNK):
        yield apdu(SIGN, MORE if at else FIRST, whole[at : at + CHUNK])


def path_bytes(path: str) -> bytes:
    """How many steps, and four bytes for each, the highest bit set where it is hardened ('). Raises ValueError."""
    steps = path.split("/")
    numbers = [step.removesuffix("'") for step in steps]
    if len(steps) > PATH_MAX or not all(one.isascii() and one.isdigit() and int(one) < HARDENED for one in numbers):
        raise ValueError(f"{path[:48]!r} is no path such as 44'/60'/0'/0/0")
    made = [int(number) + (HARDENED if step.endswith("'") else 0) for step, number in zip(steps, numbers, strict=True)]
    return bytes((len(made),)) + b"".join(one.to_bytes(4, "big") for one in made)


def read_address(answer: bytes) -> str:
    """From the public key's length and bytes, and the address's length and digits. Raises SignerError."""
    size = answer[0] if answer else 0
    digits = answer[2 + size : 2 + size + 40]
    try:
        return checksum(bytes.fromhex(digits.decode("ascii")))
    except (ValueError, UnicodeDecodeError):
        raise SignerError("the device answered with something that is no address; update its Ethereum app") from None


def checked(answer: bytes) -> bytes:
    """Without its status word. Raises SignerError for a refusal, SignerUnavailableError for a device that cannot now."""
    status = int.from_bytes(answer[-2:], "big")
    if status == OK and len(answer) >= 2:
        return answer[:-2]
    if status in REFUSALS:
        raise SignerError(f"the Ledger refuses: {REFUSALS[status]}")
    raise SignerUnavailableError(f"the Ledger does not sign: {AWAY.get(status, f'status {status:04x}; look at it')}")


# -- ways to a device --------------------------------------------------------------------------------------------------


def opened(transport: str) -> Transport:
    """Raises OSError when nothing is there, SecretError without the library."""
    return _Usb() if transport == "hid" else _Tcp(transport)


def packets(apdu_bytes: bytes) -> list[bytes]:
    """An APDU in reports of 64 bytes: channel, tag, number; the first carries the length too."""
    rest, made = len(apdu_bytes).to_bytes(2, "big") + apdu_bytes, list[bytes]()
    while rest:
        head = struct.pack(">HBH", CHANNEL, TAG, len(made))
        made.append((head + rest[: PACKET - len(head)]).ljust(PACKET, b"\0"))
        rest = rest[PACKET - len(head) :]
    return made


def unpacked(reports: Iterator[bytes]) -> bytes:
    """The answer in reports that come one after the other. Raises OSError for what is not one."""
    found, size, at = b"", 2, 0
    while len(found) < size:
        report = next(reports, b"")
        if len(report) != PACKET or struct.unpack(">HBH", report[:5]) != (CHANNEL, TAG, at):
            raise OSError("the device answered with something else")
        found, at = found + report[5:], at + 1
        if at == 1:
            size = 2 + int.from_bytes(found[:2], "big")
        if size > ANSWER_BYTES_MAX:
            raise OSError("the device answers too much")
    return found[2:size]


class _Usb:
    """The first Ledger that is plugged in."""

    def __init__(self) -> None:
        try:
            import hid
        except ImportError:
            raise SecretError(NEEDS) from None
        found = [one for one in hid.enumerate(VENDOR, 0) if one.get("interface_number") == 0 or one.get("usage_page") == 0xFFA0]
        if not found:
            raise OSError("no device")
        self._device: Any = hid.device()
        self._device.open_path(found[0]["path"])

    def exchange(self, apdu: bytes) -> bytes:
        for packet in packets(apdu):
            self._device.write(b"\0" + packet)
        return unpacked(iter(self._report, None))

    def close(self) -> None:
        self._device.close()

    def _report(self) -> bytes:
        report = bytes(self._device.read(PACKET, round(READING_S * 1_000)))
        if not report:
            raise TimeoutError("nobody pressed a button")
        return report


class _Tcp:
    """Length (4 bytes) and APDU there; length, answer, and its two bytes of status back."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self._socket = socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 0), timeout=READING_S)

    def exchange(self, apdu: bytes) -> bytes:
        self._socket.sendall(len(apdu).to_bytes(4, "big") + apdu)
        size = int.from_bytes(self._read(4), "big")
        if size > ANSWER_BYTES_MAX:
            raise OSError("the device answers too much")
        return self._read(size + 2)

    def close(self) -> None:
        self._socket.close()

    def _read(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            piece = self._socket.recv(size - len(found))
            if not piece:
                raise OSError("the device hung up")
            found += piece
        return found
