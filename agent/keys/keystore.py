"""Keys at rest: web3 keystore files (version 3), one for each key, in a folder that only its owner can open.

Other wallets can read the files and the other way round. A file is written completely or not at all, and never overwritten.
"""

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any, Final

import msgspec
from eth_keyfile.keyfile import create_keyfile_json, decode_keyfile_json

from agent.domain.errors import SecretError, SignerError
from agent.keys.bounds import DEADLINE_AHEAD_S
from agent.keys.digest import address_bytes, checksum
from agent.keys.local import LocalSigner
from agent.keys.memory import KEY_BYTES
from agent.keys.secrets import Secret, check_private
from agent.keys.spent import Spent
from agent.ports import Clock

SCRYPT_N: Final = 2**18  # 256 MB and half a second for each guess at the password
SCRYPT_N_MAX = 2**20  # a file may not ask for more: it would stall the start
PBKDF2_ROUNDS_MAX = 10_000_000
FILE_BYTES_MAX = 16_384

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.ASCII)
_KEY_TEXT = re.compile(r"(?:0x)?([0-9a-fA-F]{64})", re.ASCII)
_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141  # of secp256k1 (SEC 2)


class KeyEntry(msgspec.Struct, frozen=True):
    """A key in the store: its name and its address."""

    name: str
    address: str


class Keystore:
    """A folder of keys. `scrypt_n` is cheaper only in tests and in the sandbox, where the keys hold nothing."""

    __slots__ = ("_folder", "_scrypt_n")

    def __init__(self, folder: Path, scrypt_n: int = SCRYPT_N) -> None:
        """Creates the folder (mode 700) if it is missing. Raises SecretError if other users can open it."""
        self._folder, self._scrypt_n = folder, scrypt_n
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            check_private(folder.stat(), folder, 0o700)
        except OSError as error:
            raise SecretError(f"cannot use the key folder {folder}: {error.strerror}; name another one") from None

    def new(self, name: str, password: Secret) -> str:
        """Make a key from the system's randomness, keep it under `name`, and return its address."""
        while True:
            key = bytearray(os.urandom(KEY_BYTES))
            if 0 < int.from_bytes(key, "big") < _ORDER:
                return self._save(name, key, password)

    def import_key(self, name: str, key_text: Secret, password: Secret) -> str:
        """Keep an existing key (64 hex digits, with or without 0x) under `name`, and return its address."""
        found = _KEY_TEXT.fullmatch(key_text.reveal().strip())
        if not found or not 0 < int(found[1], 16) < _ORDER:
            raise SecretError("this is not a private key: it has 64 hex digits, with or without 0x in front")
        return self._save(name, bytearray.fromhex(found[1]), password)

    def list_keys(self) -> tuple[KeyEntry, ...]:
        """Every key here, by name. Needs no password; raises SecretError for a file that is no keystore."""
        names = sorted(path.stem for path in self._folder.glob("*.json"))
        return tuple(KeyEntry(name, checksum(_address(self._read(name), name))) for name in names)

    def unlock(
        self,
        name: str,
        password: Secret,
        clock: Clock | None = None,
        deadline_ahead_s: int = DEADLINE_AHEAD_S,
        spent: Spent | None = None,
    ) -> LocalSigner:
        """Open a key for signing. Takes as long as the file's key derivation (half a second). Raises SecretError."""
        document = self._read(name)
        _check_derivation(document, name)
        try:
            plain = decode_keyfile_json(document, _password(password))
        except (ValueError, TypeError, KeyError, OverflowError):
            # From None: the cause may hold parts of the file or of the password.
            raise SecretError(f"the password does not open key {name}; check the password, or that the file is whole") from None
        key = bytearray(plain)
        del plain
        try:
            signer = LocalSigner(key, name, clock, deadline_ahead_s, spent)
        except SignerError:
            raise SecretError(f"key {name} opens but holds no usable key; restore the file from its backup") from None
        if address_bytes(signer.address) != _address(document, name):
            signer.close()
            raise SecretError(f"key {name} opens but is not the key of the address in its file; restore it from its backup")
        return signer

    def __repr__(self) -> str:
        return f"Keystore({str(self._folder)!r})"

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise SecretError("a key's name has 1 to 64 small letters, digits, - or _, and begins with a letter or digit")
        return self._folder / f"{name}.json"

    def _save(self, name: str, key: bytearray, password: Secret) -> str:
        path = self._path(name)
        try:
            secret = _password(password)
            if path.exists():
                raise SecretError(f"key {name} exists already and is not overwritten; choose another name")
            document = create_keyfile_json(bytes(key), secret, version=3, kdf="scrypt", iterations=self._scrypt_n)
        finally:
            key[:] = bytes(len(key))
        try:
            write_new(path, json.dumps(document).encode())
        except FileExistsError:
            raise SecretError(f"key {name} exists already and is not overwritten; choose another name") from None
        except OSError as error:
            raise SecretError(f"cannot write {path}: {error.strerror}; nothing was kept") from None
        return checksum(_address(document, name))

    def _read(self, name: str) -> dict[str, Any]:
        path = self._path(name)
        try:
            check_private(self._folder.stat(), self._folder, 0o700)
            with path.open("rb") as file:
                check_private(os.fstat(file.fileno()), path, 0o600)
                raw = file.read(FILE_BYTES_MAX + 1)
        except FileNotFoundError:
            raise SecretError(f"there is no key {name} in {self._folder}; create it with `isthmus keys new {name}`") from None
        except OSError as error:
            raise SecretError(f"cannot read {path}: {error.strerror}") from None
        try:
            document = json.loads(raw) if len(raw) <= FILE_BYTES_MAX else None
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict) or document.get("version") != 3:
            raise SecretError(f"{path} is not a keystore file of version 3; restore it from its backup")
        return document


def _password(password: Secret) -> bytes:
    text = password.reveal()
    if not text:
        raise SecretError("an empty password protects nothing; give one")
    return text.encode()


def _address(document: dict[str, Any], name: str) -> bytes:
    found = document.get("address")
    digits = found.lower().removeprefix("0x") if isinstance(found, str) else ""
    try:
        return address_bytes("0x" + digits)
    except SignerError:
        raise SecretError(f"the file of key {name} names no address; import the key again") from None


def _check_derivation(document: dict[str, Any], name: str) -> None:
    """Bound what the file may ask of this machine, before anything is computed."""
    crypto = document.get("crypto", document.get("Crypto"))
    crypto = crypto if isinstance(crypto, dict) else {}
    kind, params = crypto.get("kdf"), crypto.get("kdfparams")
    params = params if isinstance(params, dict) else {}
    numbers = [params.get(key) for key in (("n", "r", "p") if kind == "scrypt" else ("c",) if kind == "pbkdf2" else ())]
    tops = (SCRYPT_N_MAX, 8, 16) if kind == "scrypt" else (PBKDF2_ROUNDS_MAX,)
    bounded = all(type(n) is int and 0 < n <= top for n, top in zip(numbers, tops, strict=False))
    if not numbers or not bounded or params.get("dklen") != KEY_BYTES:
        raise SecretError(f"the file of key {name} asks for a key derivation out of bounds; import the key again")


def write_new(path: Path, raw: bytes) -> None:
    """Complete or not at all, on the disk on return, and never over another file (FileExistsError)."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-", suffix=".tmp")  # mode 600
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)  # unlike a rename, a link never replaces
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
