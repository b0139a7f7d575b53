"""Keys at rest: other wallets read them and the other way round; nothing is overwritten, left open, or shown."""

import json
import os
import traceback
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from agent.domain.errors import SecretError
from agent.keys.keystore import SCRYPT_N, KeyEntry, Keystore
from agent.keys.secrets import Secret

CHEAP = 2**4
KEY_HEX = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"
OWNER = "0x2c7536E3605D9C16a7a3D7b1898e529396a65c23"
PASSWORD = Secret("correct horse ß")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
def store(folder: Path) -> Keystore:
    return Keystore(folder, scrypt_n=CHEAP)


def test_a_new_key_opens_again(store: Keystore, folder: Path) -> None:
    address = store.new("hot", PASSWORD)
    signer = store.unlock("hot", PASSWORD)
    assert (signer.address, signer.key_id) == (address, "hot")
    assert store.list_keys() == (KeyEntry("hot", address),)
    assert store.new("second", PASSWORD) != address
    assert (folder.stat().st_mode & 0o777, (folder / "hot.json").stat().st_mode & 0o777) == (0o700, 0o600)
    assert sorted(path.name for path in folder.iterdir()) == ["hot.json", "second.json"]


@pytest.mark.parametrize("text", [KEY_HEX, "0x" + KEY_HEX, "0x" + KEY_HEX.upper(), f" {KEY_HEX}\n"])
def test_eth_account_reads_ours(store: Keystore, folder: Path, text: str) -> None:
    assert store.import_key("mine", Secret(text), PASSWORD) == OWNER
    document = json.loads((folder / "mine.json").read_text())
    assert bytes(Account.decrypt(document, PASSWORD.reveal())).hex() == KEY_HEX
    assert KEY_HEX not in (folder / "mine.json").read_text().lower()


@pytest.mark.parametrize(("kdf", "work"), [("scrypt", CHEAP), ("pbkdf2", 10)])
def test_we_read_eth_accounts(store: Keystore, folder: Path, kdf: Any, work: int) -> None:
    write(folder / "theirs.json", Account.encrypt(KEY_HEX, PASSWORD.reveal(), kdf=kdf, iterations=work))
    assert store.unlock("theirs", PASSWORD).address == OWNER


def test_the_default_is_expensive() -> None:
    assert SCRYPT_N == 2**18


def write(path: Path, document: object, mode: int = 0o600) -> None:
    path.write_text(json.dumps(document))
    path.chmod(mode)


def test_a_wrong_password_is_one_line_without_secrets(store: Keystore) -> None:
    store.import_key("mine", Secret(KEY_HEX), PASSWORD)
    wrong = Secret("wrong horse")
    with pytest.raises(SecretError) as caught:
        store.unlock("mine", wrong)
    shown = "".join(traceback.format_exception(caught.value)).lower()
    assert str(caught.value) == "the password does not open key mine; check the password, or that the file is whole"
    assert KEY_HEX not in shown
    assert "wrong horse" not in shown
    assert "correct horse" not in shown


def test_an_empty_password_is_refused(store: Keystore, folder: Path) -> None:
    with pytest.raises(SecretError, match="empty password"):
        store.new("hot", Secret(""))
    assert list(folder.iterdir()) == []


def test_nothing_is_overwritten(store: Keystore, folder: Path) -> None:
    store.import_key("mine", Secret(KEY_HEX), PASSWORD)
    before = (folder / "mine.json").read_bytes()
    for attempt in (lambda: store.new("mine", PASSWORD), lambda: store.import_key("mine", Secret(KEY_HEX), PASSWORD)):
        with pytest.raises(SecretError, match="is not overwritten"):
            attempt()
    assert (folder / "mine.json").read_bytes() == before
    assert len(list(folder.iterdir())) == 1


def test_a_dangling_link_is_not_written_through(store: Keystore, folder: Path, tmp_path: Path) -> None:
    (folder / "mine.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SecretError, match="is not overwritten"):
        store.new("mine", PASSWORD)
    assert not (tmp_path / "elsewhere").exists()
    assert [path.name for path in folder.iterdir()] == ["mine.json"]


@pytest.mark.parametrize("name", ["", "../up", "a/b", "A", ".hidden", "a.json", "x" * 65, "ä", "a\n", "-a", "a b"])
def test_names_are_checked(store: Keystore, name: str) -> None:
    for attempt in (lambda: store.new(name, PASSWORD), lambda: store.unlock(name, PASSWORD)):
        with pytest.raises(SecretError, match="a key's name"):
            attempt()


@pytest.mark.parametrize(
    "text", ["", "0x", KEY_HEX[:-1], KEY_HEX + "0", "g" * 64, "00" * 32, "ff" * 32, "0X" + KEY_HEX, KEY_HEX[:-2] + "٣٣"]
)
def test_what_is_no_key_is_refused_and_not_repeated(store: Keystore, text: str) -> None:
    with pytest.raises(SecretError, match="not a private key") as caught:
        store.import_key("mine", Secret(text), PASSWORD)
    assert len(text) < 3 or text not in "".join(traceback.format_exception(caught.value))


def test_an_open_folder_is_refused(store: Keystore, folder: Path) -> None:
    store.new("hot", PASSWORD)
    for mode in (0o750, 0o705, 0o777):
        folder.chmod(mode)
        for attempt in (lambda: Keystore(folder), lambda: store.unlock("hot", PASSWORD), store.list_keys):
            with pytest.raises(SecretError, match=f"run: chmod 700 {folder}"):
                attempt()
    folder.chmod(0o700)


def test_an_open_file_is_refused(store: Keystore, folder: Path) -> None:
    store.new("hot", PASSWORD)
    for mode in (0o640, 0o604, 0o620):
        (folder / "hot.json").chmod(mode)
        with pytest.raises(SecretError, match=f"run: chmod 600 {folder / 'hot.json'}"):
            store.unlock("hot", PASSWORD)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_somebody_else_is_refused(store: Keystore, folder: Path) -> None:
    store.new("hot", PASSWORD)
    os.chown(folder / "hot.json", 65534, -1)
    with pytest.raises(SecretError, match="belongs to another user"):
        store.unlock("hot", PASSWORD)


def test_a_missing_key_says_how_to_make_it(store: Keystore) -> None:
    with pytest.raises(SecretError, match="keys new cold"):
        store.unlock("cold", PASSWORD)


def damaged(document: dict[str, Any], how: str) -> object:
    crypto = document["crypto"]
    if how == "scrypt bomb":
        crypto["kdfparams"]["n"] = 2**30
    elif how == "scrypt text":
        crypto["kdfparams"]["n"] = "16"
    elif how == "r bomb":
        crypto["kdfparams"]["r"] = 2**20
    elif how == "unknown derivation":
        crypto["kdf"] = "argon2"
    elif how == "pbkdf2 bomb":
        crypto.update(kdf="pbkdf2", kdfparams={"c": 10**9, "dklen": 32, "prf": "hmac-sha256", "salt": "00"})
    elif how == "other address":
        document["address"] = "00" * 20
    elif how == "no address":
        del document["address"]
    elif how == "version":
        document["version"] = 4
    elif how == "short cipher":
        crypto["ciphertext"] = crypto["ciphertext"][:-2]
    elif how == "no crypto":
        del document["crypto"]
    return [document] if how == "list" else document


@pytest.mark.parametrize(
    "how",
    [
        *("scrypt bomb", "scrypt text", "r bomb", "unknown derivation", "pbkdf2 bomb"),
        *("other address", "no address", "version", "short cipher", "no crypto", "list"),
    ],
)
def test_damaged_files_are_refused_in_one_line(store: Keystore, folder: Path, how: str) -> None:
    document = Account.encrypt(KEY_HEX, PASSWORD.reveal(), kdf="scrypt", iterations=CHEAP)
    write(folder / "bad.json", damaged(dict(document), how))
    with pytest.raises(SecretError) as caught:
        store.unlock("bad", PASSWORD)
    assert "\n" not in str(caught.value)
    assert KEY_HEX not in str(caught.value)


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b"[" * 10_000, b" " * 20_000])
def test_files_that_are_no_json(store: Keystore, folder: Path, raw: bytes) -> None:
    (folder / "bad.json").write_bytes(raw)
    (folder / "bad.json").chmod(0o600)
    with pytest.raises(SecretError, match="not a keystore file"):
        store.unlock("bad", PASSWORD)


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SecretError, match="cannot use the key folder"):
        Keystore(tmp_path / "file" / "keys")
