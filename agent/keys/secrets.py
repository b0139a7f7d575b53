"""Passwords and API secrets, always by reference: the configuration says where one lies, never what it is.

`env:NAME`, `file:PATH` (readable by its owner only) or `keyring:service/name` (the desktop's or the system's own store).
"""

import hmac
import os
import re
import stat
from pathlib import Path

import msgspec

from agent.domain.errors import SecretError

SECRET_BYTES_MAX = 65_536

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)


class Secret:
    """A text that no print, log, format or pickle shows. `reveal` is the only way to it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "Secret(****)"

    def __str__(self) -> str:
        return "****"

    def __format__(self, spec: str) -> str:
        return format("****", spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._text.encode(), other._text.encode())

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> str:
        raise SecretError("a secret cannot be pickled or copied; pass its reference (env:, file:, keyring:)")


class Secrets(msgspec.Struct, frozen=True):
    """References and paths of one settings file: what is relative lies beside it, in `folder`."""

    folder: Path

    def read(self, reference: str) -> Secret:
        """As `read_secret`."""
        kind, _, rest = reference.partition(":")
        return read_secret(f"file:{self.path(rest)}" if kind == "file" and rest else reference)

    def path(self, text: str) -> Path:
        return self.folder / Path(text).expanduser()

    def private(self, text: str) -> Path:
        """The path of a file that a library reads by itself. Raises SecretError if others can read it, or it is not there."""
        path = self.path(text)
        try:
            check_private(path.stat(), path, 0o600)
        except OSError as error:
            raise SecretError(f"cannot read the secret file {path}: {error.strerror}; create it with mode 600") from None
        return path


def read_secret(reference: str) -> Secret:
    """Fetch what `reference` points to. Raises SecretError that says what to do when it is missing, empty or too open."""
    kind, colon, rest = reference.partition(":")
    if not colon or not rest or kind not in ("env", "file", "keyring"):
        # The reference is not repeated: people put the secret itself there.
        raise SecretError("a secret is given by reference: env:NAME, file:PATH or keyring:service/name")
    text = _from_env(rest) if kind == "env" else _from_file(rest) if kind == "file" else _from_keyring(rest)
    if not text:
        raise SecretError(f"the secret {reference} is empty; fill it in")
    return Secret(text)


def _from_env(name: str) -> str:
    if not _ENV_NAME.fullmatch(name):
        raise SecretError("env: needs the name of a variable (letters, digits, underscores), not the secret itself")
    text = os.environ.get(name)
    if text is None:
        raise SecretError(f"the environment variable {name} is not set; export it, or use file:PATH")
    return text


def _from_file(name: str) -> str:
    path = Path(name).expanduser()
    try:
        with path.open("rb") as file:
            check_private(os.fstat(file.fileno()), path, 0o600)
            raw = file.read(SECRET_BYTES_MAX + 1)
    except OSError as error:
        raise SecretError(f"cannot read the secret file {path}: {error.strerror}; create it with mode 600") from None
    if len(raw) > SECRET_BYTES_MAX:
        raise SecretError(f"the secret file {path} is larger than {SECRET_BYTES_MAX} bytes; it should hold one secret")
    try:
        return raw.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise SecretError(f"the secret file {path} is not text; write the secret as one line of UTF-8") from None


def check_private(found: os.stat_result, path: Path, mode: int) -> None:
    """Refuse (SecretError) what others can read or write, or what is not ours. `mode` is what chmod should make of it."""
    if found.st_uid != os.geteuid():
        raise SecretError(f"{path} belongs to another user; run: chown {os.geteuid()} {path}")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise SecretError(f"{path} is open to other users; run: chmod {mode:o} {path}")


def _from_keyring(rest: str) -> str:
    service, slash, name = rest.partition("/")
    if not service or not slash or not name:
        raise SecretError("keyring: needs keyring:service/name")
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError:
        raise SecretError("keyring is not installed; run: pip install 'isthmus[keyring]', or use file:PATH") from None
    try:
        store = keyring.get_keyring()
        # Fail closed: without a real store, keyring resolves to one that refuses (0) or keeps plain text (below 1).
        if float(store.priority) < 1 or type(store).__module__.startswith(("keyring.backends.fail", "keyring.backends.null")):
            raise SecretError(f"this machine has no safe keyring ({type(store).__module__}); use file:PATH with mode 600")
        text = store.get_password(service, name)
    except (KeyringError, RuntimeError) as error:
        raise SecretError(f"the keyring does not answer ({type(error).__name__}); unlock it, or use file:PATH") from None
    if text is None:
        raise SecretError(f"the keyring has no entry {service}/{name}; run: keyring set {service} {name}")
    return str(text)
