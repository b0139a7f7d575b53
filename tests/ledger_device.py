"""A model of a Ledger with its Ethereum app, written from the published protocol: no device was at hand.

It speaks as Speculos does (TCP: length, APDU; length, answer, status), derives its keys from a mnemonic, puts a transaction's
pieces together, reads how long it is from its own RLP, shows what it signs, and really signs.
"""

import socketserver
import threading
from typing import Any

import coincurve
import rlp
from eth_account import Account
from eth_utils.crypto import keccak

Account.enable_unaudited_hdwallet_features()
OK, NO, INVALID, LOCKED, NOT_OPEN = 0x9000, 0x6985, 0x6A80, 0x5515, 0x6D00


class Ledger:
    """`says`: the status with which its owner answers what is shown. `shown`: what was, in order."""

    def __init__(self, mnemonic: str) -> None:
        self._mnemonic, self.says, self.is_locked, self.allows_blind = mnemonic, OK, False, True
        self.shown: list[dict[str, Any]] = []
        self._pieces, self._path, self._port = b"", "", 0
        self.start()

    @property
    def port(self) -> int:
        return self._port

    def account(self, path: str = "m/44'/60'/0'/0/0") -> Any:
        return Account.from_mnemonic(self._mnemonic, account_path=path)

    # -- its app -------------------------------------------------------------------------------------------------------

    def heard(self, apdu: bytes) -> tuple[bytes, int]:
        if len(apdu) < 5 or apdu[0] != 0xE0 or len(apdu) != 5 + apdu[4]:
            return b"", 0x6E00
        if self.is_locked:
            return b"", LOCKED
        instruction, p1, p2, data = apdu[1], apdu[2], apdu[3], apdu[5:]
        if instruction == 0x02 and (p1, p2) == (0, 0):
            return self._address(data), OK
        if instruction == 0x04 and p1 in (0x00, 0x80) and p2 == 0:
            return self._transaction(data, is_first=p1 == 0)
        if instruction == 0x0C and (p1, p2) == (0, 0):
            return self._typed(data)
        return b"", NOT_OPEN

    def _address(self, data: bytes) -> bytes:
        path, rest = _path(data)
        assert rest == b""
        account = self.account(path)
        point = b"\x04" + account._key_obj.public_key.to_bytes()
        digits = account.address[2:].encode()
        return bytes((len(point),)) + point + bytes((len(digits),)) + digits

    def _transaction(self, data: bytes, *, is_first: bool) -> tuple[bytes, int]:
        if is_first:
            self._path, self._pieces = _path(data)
        else:
            self._pieces += data
        if not self._path or self._pieces[:1] != b"\x02":
            return b"", INVALID
        try:
            prefix, kind, length, _ = rlp.codec.consume_length_prefix(self._pieces, 1)
        except rlp.exceptions.DecodingError:
            return b"", OK
        size = 1 + len(prefix) + length
        if len(self._pieces) < size:
            return b"", OK
        whole, self._pieces = self._pieces, b""
        if len(whole) != size or kind is not list:
            return b"", INVALID
        fields = rlp.decode(whole[1:])
        if fields[7] and not self.allows_blind:
            return b"", INVALID
        names = ("chain_id", "nonce", "tip", "fee", "gas", "to", "value", "data")
        self.shown.append(dict(zip(names, fields, strict=False)))
        return self._signed(self._path, keccak(whole), 0)

    def _typed(self, data: bytes) -> tuple[bytes, int]:
        path, rest = _path(data)
        if len(rest) != 64 or not self.allows_blind:
            return b"", INVALID
        self.shown.append({"domain": rest[:32], "message": rest[32:]})
        return self._signed(path, keccak(b"\x19\x01" + rest), 27)

    def _signed(self, path: str, digest: bytes, v: int) -> tuple[bytes, int]:
        if self.says != OK:
            return b"", self.says
        raw = coincurve.PrivateKey(bytes(self.account(path).key)).sign_recoverable(digest, hasher=None)
        return bytes((v + raw[64],)) + raw[:64], OK

    # -- its wire ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        device = self

        class Talk(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                while head := self.rfile.read(4):
                    answer, status = device.heard(self.rfile.read(int.from_bytes(head, "big")))
                    self.wfile.write(len(answer).to_bytes(4, "big") + answer + status.to_bytes(2, "big"))

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address, daemon_threads = True, True

        self._server = Server(("127.0.0.1", self._port), Talk)
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _path(data: bytes) -> tuple[str, bytes]:
    count, steps = data[0], []
    for at in range(1, 1 + 4 * count, 4):
        number = int.from_bytes(data[at : at + 4], "big")
        steps.append(f"{number & 0x7FFFFFFF}{chr(39) if number >> 31 else ''}")
    return "/".join(("m", *steps)), data[1 + 4 * count :]
