"""A party's home: one folder with who it is, its primes until they are used, its share, and what it was asked.

identity.sealed   its key and certificate on the wire
primes.sealed     for the one run of `aux` at the set-up; gone afterwards
share.sealed      its share of the key (prepared.sealed while the others have not written theirs yet)
group.toml        the parties
audit.jsonl       what it was asked and what it answered
"""

from pathlib import Path

import msgspec

from agent.domain.errors import SecretError
from agent.keys.cosigner.group import THRESHOLD, Group, entry, read_group
from agent.keys.cosigner.identity import Identity, new_identity
from agent.keys.cosigner.vault import SCRYPT_N, Vault, read_private, read_sealed, wipe
from agent.keys.digest import checksum
from agent.keys.keystore import write_new
from agent.keys.secrets import Secret
from agent.keys.threshold import engine

GROUP_FILE, AUDIT_FILE = "group.toml", "audit.jsonl"


class _Backup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Two sealed files, as they lie in the home: the party and its share."""

    version: int
    identity: bytes
    share: bytes


class Home:
    """Owns the folder's secrets while it is open."""

    __slots__ = ("_identity", "folder", "vault")

    def __init__(self, folder: Path, password: Secret, scrypt_n: int = SCRYPT_N) -> None:
        """Raises SecretError when others can open the folder."""
        self.folder = folder
        self.vault = Vault(folder, password, scrypt_n)
        self._identity: Identity | None = None

    @property
    def audit_path(self) -> Path:
        return self.folder / AUDIT_FILE

    @property
    def group_path(self) -> Path:
        return self.folder / GROUP_FILE

    @property
    def identity(self) -> Identity:
        """Raises SecretError where there is none, or the password is another."""
        if self._identity is None:
            if not self.vault.has("identity"):
                raise SecretError(f"{self.folder} is no home of a party; make it: isthmus cosigner init --home {self.folder}")
            plain, about = self.vault.load("identity")
            size = int.from_bytes(plain[:2], "big")
            self._identity = Identity(bytes(plain[2 + size :]), bytearray(plain[2 : 2 + size]))
            wipe(plain)
            if about != _about_identity(self._identity):
                raise SecretError(f"{self.vault.path('identity')} is not what it says; restore it from its backup")
        return self._identity

    def open(self) -> None:
        """Slow on purpose, once: the password becomes a key here. Raises as `identity`."""
        self.identity  # noqa: B018

    def make(self, name: str, at: str) -> str:
        """A new identity; the entry for the group's file. Raises SecretError, ConfigError for a bad name or address."""
        identity = new_identity(name)
        text = entry(name, at, identity.certificate)
        key = identity.key
        self.vault.save("identity", bytearray(len(key).to_bytes(2, "big") + key + identity.certificate), _about_identity(identity))
        self._identity = identity
        return text

    def group(self) -> tuple[Group, int]:
        """The parties, and which of them we are. Raises ConfigError, or SecretError when we are none of them."""
        found = read_group(self.group_path)
        ours = found.party(self.identity.fingerprint)
        if ours is None:
            raise SecretError(f"{self.group_path} does not name this party ({self.identity.fingerprint[:16]}…); add its entry")
        return found, ours

    def keep_primes(self, primes: engine.Primes) -> None:
        self.vault.save("primes", primes.to_bytes(), "primes")

    def take_primes(self) -> engine.Primes:
        """They serve once, so they are gone from the disk before they are used. Raises SecretError."""
        if not self.vault.has("primes"):
            raise SecretError("this party has no primes for a set-up; make them: isthmus cosigner primes")
        plain, _ = self.vault.load("primes")
        try:
            primes = engine.Primes.from_bytes(plain)
        except engine.ThresholdError as error:
            raise SecretError(f"the primes cannot be used ({error}); make others: isthmus cosigner primes") from None
        finally:
            wipe(plain)
        self.vault.drop("primes")
        return primes

    def has_share(self) -> bool:
        return self.vault.has("share")

    def prepare_share(self, share: engine.KeyShare, group: Group) -> None:
        """Write it, and read it back as a share; not in use yet. Raises SecretError."""
        self.vault.save("prepared", share.to_bytes(), _about_share(share, group))
        self.share(group, "prepared")

    def commit_share(self) -> None:
        """What was prepared is the share from now on."""
        if self.has_share():
            raise SecretError(f"{self.folder} has a share already; it is not replaced")
        self.vault.rename("prepared", "share")

    def share(self, group: Group, name: str = "share") -> engine.KeyShare:
        """Our share, if it belongs to this group. Raises SecretError."""
        if not self.vault.has(name):
            raise SecretError(f"{self.folder} has no share of a key yet; run: isthmus cosigner setup")
        plain, about = self.vault.load(name)
        try:
            share = engine.KeyShare.from_bytes(plain)
        except engine.ThresholdError as error:
            raise SecretError(f"the share in {self.folder} cannot be used ({error}); restore it from its backup") from None
        finally:
            wipe(plain)
        _, ours = self.group()
        if about != _about_share(share, group) or share.party != ours or share.parties != len(group.members):
            raise SecretError(
                f"the share in {self.folder} was made in another group than {self.group_path} says; correct that file"
            )
        return share

    def backup(self, path: Path) -> None:
        """Identity and share in one file, as they are sealed here, after both have been opened. Raises SecretError."""
        group, _ = self.group()
        self.share(group)
        found = _Backup(1, *(read_private(self.vault.path(name)) for name in ("identity", "share")))
        try:
            write_new(path, msgspec.json.encode(found))
        except FileExistsError:
            raise SecretError(f"{path} exists already and is not overwritten; choose another name") from None
        except OSError as error:
            raise SecretError(f"cannot write {path}: {error.strerror}; nothing was kept") from None

    def restore(self, path: Path, group: Group) -> engine.KeyShare:
        """Take a backup into this empty home, if the password opens it and it belongs to the group. Raises SecretError."""
        found = _read_backup(path)
        plain, about = self.vault.open(found.share, str(path))
        try:
            share = engine.KeyShare.from_bytes(plain)
        except engine.ThresholdError as error:
            raise SecretError(f"{path} holds no share that can be used ({error}); take another backup") from None
        finally:
            wipe(plain)
        certificate, who = self.vault.open(found.identity, str(path))
        wipe(certificate)
        member = group.members[share.party] if share.party < len(group.members) else None
        if member is None or about != _about_share(share, group) or who != f"identity {member.fingerprint}":
            raise SecretError(f"{path} does not belong to the group {group.name}; take the group's file of that backup")
        self.vault.put("identity", found.identity)
        self.vault.put("share", found.share)
        return share

    def close(self) -> None:
        """Overwrite what can be."""
        self.vault.close()
        if self._identity is not None:
            wipe(self._identity.key)
            self._identity = None

    def __repr__(self) -> str:
        return f"Home({str(self.folder)!r})"


def account(share: engine.KeyShare) -> str:
    """The address of the shared key, with checksum."""
    return checksum(share.address)


def _about_identity(identity: Identity) -> str:
    return f"identity {identity.fingerprint}"


def _about_share(share: engine.KeyShare, group: Group) -> str:
    """Bound to it in its file, so that no share is taken for another's or used in another group."""
    return (
        f"share {share.party} of {share.parties}, {THRESHOLD} sign, {account(share)}, {share.fingerprint.hex()}, {group.id.hex()}"
    )


def _read_backup(path: Path) -> _Backup:
    try:
        found = msgspec.json.decode(read_private(path), type=_Backup)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        raise SecretError(f"{path} is no backup of a party; name the file that `isthmus cosigner backup` wrote") from None
    read_sealed(found.share, str(path))
    return found
