"""The parties of one shared key, as a file that is the same for all of them: who they are, and where each answers.

The file holds no secret. That it names the right certificates is for people to check: each compares the fingerprints with the
others over another channel, once, before the key is made.
"""

import base64
import binascii
import hashlib
import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from agent.domain.errors import ConfigError
from agent.keys.cosigner.identity import fingerprint

THRESHOLD = 2  # parties that sign together, of however many there are
PARTIES_MAX = 16
FILE_BYTES_MAX = 65_536

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}", re.ASCII)
_AT = re.compile(r"([0-9A-Za-z.-]{1,253}|\[[0-9a-fA-F:]{2,45}\]):([1-9][0-9]{0,4})", re.ASCII)


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One party. `at`: host:port. `certificate`: base64 of its DER, which `fingerprint` is the SHA-256 of."""

    name: str
    at: str
    fingerprint: str
    certificate: str

    @property
    def der(self) -> bytes:
        return base64.b64decode(self.certificate)

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.at.rpartition(":")
        return host.strip("[]"), int(port)


class Group(msgspec.Struct, frozen=True):
    """The parties in their order, which is their number in every ceremony."""

    name: str
    members: tuple[Member, ...]

    @property
    def id(self) -> bytes:
        """What a share is bound to: the name and the certificates in their order; a party may move to another address."""
        return hashlib.sha256(msgspec.json.encode((self.name, THRESHOLD, [one.fingerprint for one in self.members]))).digest()

    def party(self, shown: str) -> int | None:
        """Whose fingerprint it is."""
        return next((at for at, one in enumerate(self.members) if one.fingerprint == shown), None)


def read_group(path: Path) -> Group:
    """Raises ConfigError, one line, for what is no file of a group."""
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the group file {path}: {error.strerror}; put the parties' entries into it") from None
    if len(raw) > FILE_BYTES_MAX:
        raise ConfigError(f"{path} is larger than {FILE_BYTES_MAX} bytes: this is no file of a group")
    try:
        return group_of(tomllib.loads(raw.decode()), path.name)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid TOML ({str(error)[:120]}); correct it there") from None


def group_of(data: Any, where: str) -> Group:
    """From the document of a file. Raises ConfigError."""
    try:
        members = tuple(msgspec.convert(one, type=Member) for one in data["party"])
        found = Group(data["name"], members)
    except (KeyError, TypeError, msgspec.ValidationError) as error:
        raise ConfigError(f"{where}: not the file of a group ({str(error)[:120]}); it has a name, and a [[party]] each") from None
    if set(data) != {"name", "party"} or not _NAME.fullmatch(str(found.name)):
        raise ConfigError(f"{where}: a group has a name of small letters and digits, and its parties; correct it")
    if not THRESHOLD <= len(members) <= PARTIES_MAX:
        raise ConfigError(f"{where}: a group has {THRESHOLD} to {PARTIES_MAX} parties, this has {len(members)}")
    for one in members:
        _check(one, where)
    for field in ("name", "at", "fingerprint"):
        if len({getattr(one, field) for one in members}) < len(members):
            raise ConfigError(f"{where}: two parties have the same {field}; correct one")
    return found


def entry(name: str, at: str, certificate: bytes) -> str:
    """What a party's owner sends to the others, to be put into the group's file. Raises ConfigError for a bad name or address."""
    text = base64.b64encode(certificate).decode()
    found = Member(name, at, fingerprint(certificate), text)
    _check(found, "this party")
    return f'[[party]]\nname = "{name}"\nat = "{at}"\nfingerprint = "{found.fingerprint}"\ncertificate = "{text}"\n'


def _check(one: Member, where: str) -> None:
    if not _NAME.fullmatch(one.name):
        raise ConfigError(f"{where}: a party's name has 1 to 32 small letters, digits, - or _; rename {one.name[:40]!r}")
    found = _AT.fullmatch(one.at)
    if not found or int(found[2]) > 65_535:
        raise ConfigError(f"{where}: {one.at[:60]!r} is no address; write HOST:PORT")
    try:
        der = base64.b64decode(one.certificate, validate=True)
    except (binascii.Error, ValueError):
        der = b""
    if fingerprint(der) != one.fingerprint:
        raise ConfigError(f"{where}: the certificate of {one.name} is not the one of its fingerprint; copy its entry again")
