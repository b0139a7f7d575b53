"""What a party keeps on its disk: sealed files that open with their password alone, a log that shows a change, a group's file."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.errors import ConfigError, SecretError, SignerError
from agent.keys.cosigner.audit import AuditLog, Gave, Refused, Taken, read_audit
from agent.keys.cosigner.group import Group, entry, read_group
from agent.keys.cosigner.identity import new_identity
from agent.keys.cosigner.vault import Vault, wipe
from agent.keys.secrets import Secret

CANARY = "a word that nobody else may read"
TAKEN = Taken("alice", "aa" * 16, "bb" * 32, "cc" * 32, "dd" * 32)


def vault(folder: Path, password: str = CANARY) -> Vault:
    return Vault(folder, Secret(password), 2**4)


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    made = vault(tmp_path_factory.mktemp("vault"))
    made.save("share", bytearray(b"a share of a key"), "share 0 of 3")
    return made.path("share").read_bytes()


# -- sealed files ------------------------------------------------------------------------------------------------------


def test_what_is_saved_comes_back_and_what_was_handed_over_is_overwritten(tmp_path: Path) -> None:
    secret = bytearray(b"a share of a key")
    made = vault(tmp_path / "home")
    made.save("share", secret, "share 0 of 3")
    assert secret == bytes(16)
    assert vault(tmp_path / "home").load("share") == (bytearray(b"a share of a key"), "share 0 of 3")
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700
    assert stat.S_IMODE(made.path("share").stat().st_mode) == 0o600
    assert b"a share of a key" not in made.path("share").read_bytes()
    assert CANARY not in f"{made!r} {made}"


def test_a_file_is_never_replaced(tmp_path: Path) -> None:
    made = vault(tmp_path / "home")
    made.save("share", bytearray(b"the first"), "")
    second = bytearray(b"the second")
    with pytest.raises(SecretError, match="not overwritten"):
        made.save("share", second, "")
    assert second == bytes(10), "overwritten, whatever happened"
    assert made.load("share")[0] == b"the first"


def test_another_password_opens_nothing_and_is_not_told(tmp_path: Path) -> None:
    vault(tmp_path / "home").save("share", bytearray(b"x"), "")
    with pytest.raises(SecretError, match="the password does not open") as caught:
        vault(tmp_path / "home", "another canary").load("share")
    assert "canary" not in str(caught.value)
    with pytest.raises(SecretError, match="empty password"):
        vault(tmp_path / "home", "")


@given(data=st.data())
def test_damage_is_noticed_wherever_it_is(sealed: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Also in what stands in the open."""
    raw = bytearray(sealed)
    place, bit = data.draw(st.integers(0, len(raw) - 1)), data.draw(st.integers(0, 7))
    raw[place] ^= 1 << bit
    with pytest.raises(SecretError):
        vault(tmp_path_factory.getbasetemp() / "damaged").open(bytes(raw), "it")


@given(noise=st.binary(max_size=200))
def test_noise_is_no_sealed_file(noise: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(SecretError):
        vault(tmp_path_factory.getbasetemp() / "noise").open(noise, "it")


def test_a_file_may_not_ask_for_more_memory_than_there_is(sealed: bytes, tmp_path: Path) -> None:
    raw = sealed.replace(b'"scrypt_n":16', b'"scrypt_n":1073741824')
    assert raw != sealed
    with pytest.raises(SecretError, match="in a way that this version does not know"):
        vault(tmp_path / "home").open(raw, "it")


def test_others_may_not_read_it(tmp_path: Path) -> None:
    made = vault(tmp_path / "home")
    made.save("share", bytearray(b"x"), "")
    made.path("share").chmod(0o644)
    with pytest.raises(SecretError, match="chmod 600"):
        made.load("share")
    (tmp_path / "home").chmod(0o755)
    with pytest.raises(SecretError, match="chmod 700"):
        vault(tmp_path / "home")


def test_what_is_dropped_is_gone(tmp_path: Path) -> None:
    made = vault(tmp_path / "home")
    made.save("primes", bytearray(b"x"), "")
    made.drop("primes")
    made.drop("primes")
    assert not made.has("primes")
    secret = bytearray(b"secret")
    wipe(secret)
    assert secret == bytes(6)


# -- the audit log -----------------------------------------------------------------------------------------------------


def log(path: Path) -> AuditLog:
    return AuditLog(path, lambda: 7)


def test_the_log_remembers_across_restarts(tmp_path: Path) -> None:
    first = log(tmp_path / "audit.jsonl")
    first.append(TAKEN)
    first.append(Gave("alice", "aa" * 16, b"\1\2"), is_durable=False)
    first.append(Refused("bob", "", "policy: no"))
    head = first.head
    first.close()
    again = log(tmp_path / "audit.jsonl")
    assert again.found == (TAKEN, Gave("alice", "aa" * 16, b"\1\2"), Refused("bob", "", "policy: no"))
    assert again.head == head
    again.close()
    assert [(seq, at_ns) for seq, at_ns, _ in read_audit(tmp_path / "audit.jsonl")] == [(1, 7), (2, 7), (3, 7)]
    assert stat.S_IMODE((tmp_path / "audit.jsonl").stat().st_mode) == 0o600


@given(place=st.integers(0, 2_000), bit=st.integers(0, 7))
def test_any_change_is_seen(tmp_path_factory: pytest.TempPathFactory, place: int, bit: int) -> None:
    """But at the very end, where a line that lost its end is taken for one that power cut off."""
    path = tmp_path_factory.mktemp("log") / "audit.jsonl"
    made = log(path)
    for _ in range(3):
        made.append(TAKEN)
    made.close()
    raw = bytearray(path.read_bytes())
    raw[place % (len(raw) - 1)] ^= 1 << bit
    path.write_bytes(raw)
    with pytest.raises(SignerError, match="was changed"):
        log(path)
    with pytest.raises(SignerError, match="was changed"):
        read_audit(path)


@pytest.mark.parametrize("number", [0, 1])
def test_a_missing_line_is_seen(tmp_path: Path, number: int) -> None:
    path = tmp_path / "audit.jsonl"
    made = log(path)
    for _ in range(3):
        made.append(TAKEN)
    made.close()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:number] + lines[number + 1 :]))
    with pytest.raises(SignerError, match=f"line {number + 1} "):
        log(path)


def test_a_line_that_power_cut_off_is_dropped_and_the_next_follows(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    made = log(path)
    made.append(TAKEN)
    made.close()
    path.write_bytes(path.read_bytes() + b'{"seq":2,"at')
    again = log(path)
    assert again.found == (TAKEN,)
    again.append(TAKEN)
    again.close()
    assert len(read_audit(path)) == 2


def test_one_party_is_one_process(tmp_path: Path) -> None:
    first = log(tmp_path / "audit.jsonl")
    with pytest.raises(SecretError, match="another process is this party already"):
        log(tmp_path / "audit.jsonl")
    first.close()


# -- the group's file --------------------------------------------------------------------------------------------------

ENTRIES = [
    entry(name, f"127.0.0.1:{7700 + at}", new_identity(name).certificate) for at, name in enumerate(("alice", "bob", "carol"))
]
TEXT = 'name = "desk"\n' + "\n".join(ENTRIES)


def group(tmp_path: Path, text: str) -> Group:
    (tmp_path / "group.toml").write_text(text)
    return read_group(tmp_path / "group.toml")


def test_a_group_is_its_name_and_its_certificates_in_their_order(tmp_path: Path) -> None:
    found = group(tmp_path, TEXT)
    assert [one.name for one in found.members] == ["alice", "bob", "carol"]
    assert found.members[2].address == ("127.0.0.1", 7702)
    assert found.party(found.members[1].fingerprint) == 1
    assert found.party("00" * 32) is None
    assert group(tmp_path, TEXT.replace("127.0.0.1:7701", "10.0.0.1:1")).id == found.id, "a party may move"
    assert group(tmp_path, TEXT.replace("desk", "disk")).id != found.id
    assert group(tmp_path, 'name = "desk"\n' + "\n".join(reversed(ENTRIES))).id != found.id


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('name = "desk"', "", "has a name"),
        ('name = "desk"', 'name = "Desk!"', "small letters"),
        ('name = "desk"', 'name = "desk"\nthreshold = 3', "its parties"),
        ('name = "bob"', 'name = "alice"', "the same name"),
        ('name = "bob"', 'name = "Bob"', "small letters"),
        ("127.0.0.1:7701", "127.0.0.1:7700", "the same at"),
        ("127.0.0.1:7701", "7701", "no address"),
        ("127.0.0.1:7701", "127.0.0.1:77010", "no address"),
        ('fingerprint = "', 'fingerprint = "0', "not the one of its fingerprint"),
        ('certificate = "M', 'certificate = "N', "not the one of its fingerprint"),
        ('at = "127.0.0.1:7701"', "at = 1", "not the file of a group"),
        ("[[party]]", "[[party", "not valid TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_its_reason(tmp_path: Path, old: str, new: str, reason: str) -> None:
    assert old in TEXT
    with pytest.raises(ConfigError, match=reason) as caught:
        group(tmp_path, TEXT.replace(old, new, 1))
    assert "\n" not in str(caught.value)


def test_one_party_is_no_group(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="2 to 16 parties"):
        group(tmp_path, 'name = "desk"\n' + ENTRIES[0])
    with pytest.raises(ConfigError, match="cannot read"):
        read_group(tmp_path / "nowhere")
