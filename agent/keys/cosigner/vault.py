"""What a party keeps secret, at rest: one encrypted file for each thing, read back and compared before anybody relies on it.

AES-256-GCM under a key that scrypt makes of the password. `about` (what it is and whose) stands in the open and is authenticated
with it. A backup is the same file in another place.
"""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from agent.domain.errors import SecretError
from agent.keys.keystore import write_new
from agent.keys.secrets import Secret, check_private

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

SCRYPT_N: Final = 2**17  # 128 MB and a quarter of a second for each guess at the password
SCRYPT_N_MAX = 2**20  # a file may not ask for more: it would stall the start
FILE_BYTES_MAX = 1 << 20
NEEDS_CRYPTOGRAPHY = "a shared key needs a library that is not installed; run: pip install 'isthmus[mpc]'"

_SALT_BYTES, _NONCE_BYTES, _KEY_BYTES, _TAG_BYTES = 16, 12, 32, 16
_NAME = re.compile(r"[a-z]{1,16}", re.ASCII)


class Sealed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file: whoever has it can read `about`, and nothing else without the password."""

    version: int
    about: str
    scrypt_n: int
    salt: bytes
    nonce: bytes
    sealed: bytes

    def bound(self) -> bytes:
        """What is authenticated with the secret: all of it but the secret."""
        return msgspec.json.encode((self.version, self.about, self.scrypt_n, self.salt, self.nonce))


class Vault:
    """The sealed files of one folder, under one password. `scrypt_n` is cheaper only in tests and in the sandbox."""

    __slots__ = ("_folder", "_keys", "_password", "_salt", "_scrypt_n")

    def __init__(self, folder: Path, password: Secret, scrypt_n: int = SCRYPT_N) -> None:
        """Creates the folder (mode 700) if it is missing. Raises SecretError if others can open it, or for an empty password."""
        if not password.reveal():
            raise SecretError("an empty password protects nothing; give one")
        self._folder, self._password, self._scrypt_n = folder, password, scrypt_n
        self._salt = os.urandom(_SALT_BYTES)  # one for all that is written here from now on: the key is derived once
        self._keys: dict[tuple[bytes, int], bytearray] = {}
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            check_private(folder.stat(), folder, 0o700)
        except OSError as error:
            raise SecretError(f"cannot use the folder {folder}: {error.strerror}; name another one") from None

    def path(self, name: str) -> Path:
        assert _NAME.fullmatch(name), name
        return self._folder / f"{name}.sealed"

    def has(self, name: str) -> bool:
        return self.path(name).exists()

    def save(self, name: str, plain: bytearray, about: str) -> None:
        """Encrypt, write, and read it back. `plain` is overwritten, whatever happens. Raises SecretError; never replaces a file."""
        path = self.path(name)
        try:
            raw = msgspec.json.encode(self._seal(plain, about))
            self._write(path, raw)
            again, found = self.load(name)
            is_same = again == plain and found == about
            wipe(again)
            if not is_same:
                path.unlink()
                raise SecretError(f"{path} does not read back as it was written; check this disk")
        finally:
            wipe(plain)

    def load(self, name: str) -> tuple[bytearray, str]:
        """The secret and what it is. Whoever asks overwrites it. Raises SecretError."""
        path = self.path(name)
        return self.open(read_private(path), str(path))

    def open(self, raw: bytes, where: str) -> tuple[bytearray, str]:
        """As `load`, from the bytes of a file."""
        library, found = _library(), read_sealed(raw, where)
        plain = bytearray(len(found.sealed) - _TAG_BYTES)
        try:
            library.aead(self._key(found.salt, found.scrypt_n)).decrypt_into(found.nonce, found.sealed, found.bound(), plain)
        except library.invalid:
            raise SecretError(f"the password does not open {where}; check the password, or that the file is whole") from None
        return plain, found.about

    def put(self, name: str, raw: bytes) -> None:
        """A sealed file from elsewhere, as it is. Raises SecretError; never replaces a file."""
        self._write(self.path(name), raw)

    def rename(self, name: str, to: str) -> None:
        """On the disk on return. Raises SecretError."""
        try:
            self.path(name).rename(self.path(to))
            sync(self._folder)
        except OSError as error:
            raise SecretError(f"cannot rename {self.path(name)}: {error.strerror}") from None

    def drop(self, name: str) -> None:
        """Overwrite and remove, as far as the disk does what it is told."""
        path = self.path(name)
        try:
            with path.open("r+b") as file:
                file.write(os.urandom(path.stat().st_size))
                file.flush()
                os.fsync(file.fileno())
            path.unlink()
            sync(self._folder)
        except FileNotFoundError:
            return
        except OSError as error:
            raise SecretError(f"cannot remove {path}: {error.strerror}; remove it by hand") from None

    def close(self) -> None:
        """Overwrite the derived keys."""
        for key in self._keys.values():
            wipe(key)
        self._keys.clear()

    def __repr__(self) -> str:
        return f"Vault({str(self._folder)!r}, password=****)"

    def __reduce__(self) -> str:
        raise SecretError("a vault cannot be pickled or copied")

    def _write(self, path: Path, raw: bytes) -> None:
        try:
            write_new(path, raw)
        except FileExistsError:
            raise SecretError(f"{path} exists already and is not overwritten; use another home, or move it away") from None
        except OSError as error:
            raise SecretError(f"cannot write {path}: {error.strerror}; nothing was kept") from None

    def _seal(self, plain: bytearray, about: str) -> Sealed:
        head = Sealed(1, about, self._scrypt_n, self._salt, os.urandom(_NONCE_BYTES), b"")
        sealed = _library().aead(self._key(head.salt, head.scrypt_n)).encrypt(head.nonce, plain, head.bound())
        return msgspec.structs.replace(head, sealed=sealed)

    def _key(self, salt: bytes, scrypt_n: int) -> bytearray:
        found = self._keys.get((salt, scrypt_n))
        if found is None:
            found = self._keys[salt, scrypt_n] = bytearray(_KEY_BYTES)
            kdf = _library().scrypt(salt=salt, length=_KEY_BYTES, n=scrypt_n, r=8, p=1)
            kdf.derive_into(self._password.reveal().encode(), found)
        return found


def read_sealed(raw: bytes, where: str) -> Sealed:
    """What stands in the open. Raises SecretError for what is no sealed file, or asks too much of this machine."""
    try:
        found = msgspec.json.decode(raw, type=Sealed)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        raise SecretError(f"{where} is no sealed file of this program; restore it from its backup") from None
    sizes = len(found.salt), len(found.nonce)
    is_power = found.scrypt_n > 1 and not found.scrypt_n & (found.scrypt_n - 1)
    if found.version != 1 or sizes != (_SALT_BYTES, _NONCE_BYTES) or not is_power or found.scrypt_n > SCRYPT_N_MAX:
        raise SecretError(f"{where} is sealed in a way that this version does not know; restore it from its backup")
    if len(found.sealed) < _TAG_BYTES:
        raise SecretError(f"{where} is cut off; restore it from its backup")
    return found


def read_private(path: Path) -> bytes:
    """A file that its owner alone can read. Raises SecretError."""
    try:
        with path.open("rb") as file:
            check_private(os.fstat(file.fileno()), path, 0o600)
            raw = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise SecretError(f"cannot read {path}: {error.strerror}") from None
    if len(raw) > FILE_BYTES_MAX:
        raise SecretError(f"{path} is larger than {FILE_BYTES_MAX} bytes; restore it from its backup")
    return raw


def wipe(secret: bytearray) -> None:
    """Overwrite. What a library copied on the way is out of reach."""
    secret[:] = bytes(len(secret))


def sync(folder: Path) -> None:
    """New names in the folder are on the disk on return."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class _Library(NamedTuple):
    """What we take from `cryptography`."""

    aead: "type[AESGCM]"
    scrypt: "type[Scrypt]"
    invalid: type[Exception]


def _library() -> _Library:
    """Raises SecretError where it is not installed."""
    try:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
    except ImportError:
        raise SecretError(NEEDS_CRYPTOGRAPHY) from None
    return _Library(AESGCM, Scrypt, InvalidTag)
