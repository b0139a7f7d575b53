"""Secrets come by reference, show nowhere, and a missing one says what to do."""

import copy
import os
import pickle
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.domain.errors import SecretError
from agent.keys.secrets import Secret, read_secret

TEXT = "hunter2-very-secret"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "api"
    path.write_text(TEXT + "\n")
    path.chmod(0o600)
    return path


def test_env_and_file(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setenv("ISTHMUS_TEST_SECRET", TEXT)
    assert read_secret("env:ISTHMUS_TEST_SECRET").reveal() == TEXT
    assert read_secret(f"file:{file}").reveal() == TEXT
    monkeypatch.setenv("HOME", str(file.parent))
    assert read_secret("file:~/api") == Secret(TEXT)


def test_a_secret_shows_nowhere() -> None:
    secret = Secret(TEXT)
    shown = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r:>30}",
        f"{secret:>10}",
        " ".join(map(str, (secret, secret))),
        repr([secret]),
        repr({"k": secret}),
    ]
    for attempt in (lambda: pickle.dumps(secret), lambda: copy.copy(secret), lambda: copy.deepcopy(secret)):
        with pytest.raises(SecretError) as caught:
            attempt()
        shown += traceback.format_exception(caught.value)
    assert TEXT not in " ".join(shown)
    assert secret == Secret(TEXT) != Secret("other")
    assert secret != TEXT
    with pytest.raises(TypeError):
        hash(secret)


@pytest.mark.parametrize("reference", ["", TEXT, "env:", "file:", "plain:" + TEXT, "keyring:", "Env:X", TEXT + ":"])
def test_what_is_no_reference_is_not_repeated(reference: str) -> None:
    with pytest.raises(SecretError, match="by reference: env:NAME") as caught:
        read_secret(reference)
    assert TEXT not in str(caught.value)


def test_env_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ISTHMUS_TEST_SECRET", raising=False)
    with pytest.raises(SecretError, match="ISTHMUS_TEST_SECRET is not set; export it"):
        read_secret("env:ISTHMUS_TEST_SECRET")
    with pytest.raises(SecretError, match="not the secret itself") as caught:
        read_secret("env:" + TEXT)
    assert TEXT not in str(caught.value)
    monkeypatch.setenv("ISTHMUS_TEST_SECRET", "")
    with pytest.raises(SecretError, match="is empty"):
        read_secret("env:ISTHMUS_TEST_SECRET")


def test_file_problems(file: Path, tmp_path: Path) -> None:
    with pytest.raises(SecretError, match="No such file"):
        read_secret(f"file:{tmp_path}/none")
    with pytest.raises(SecretError, match="Is a directory"):
        read_secret(f"file:{tmp_path}")
    for mode in (0o640, 0o604, 0o666):
        file.chmod(mode)
        with pytest.raises(SecretError, match=f"run: chmod 600 {file}"):
            read_secret(f"file:{file}")
    file.chmod(0o600)
    for raw, reason in ((b"", "is empty"), (b"\n", "is empty"), (b"\xff", "is not text"), (b"x" * 70_000, "larger than")):
        file.write_bytes(raw)
        with pytest.raises(SecretError, match=reason):
            read_secret(f"file:{file}")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_somebody_else(file: Path) -> None:
    os.chown(file, 65534, -1)
    with pytest.raises(SecretError, match="belongs to another user"):
        read_secret(f"file:{file}")


keyring = pytest.importorskip("keyring")


@pytest.fixture
def backends() -> Iterator[None]:
    before = keyring.get_keyring()
    yield
    keyring.set_keyring(before)


@pytest.mark.usefixtures("backends")
def test_keyring_reads_a_safe_store() -> None:
    from keyring.backend import KeyringBackend
    from keyring.errors import KeyringLocked

    class Vault(KeyringBackend):
        priority = 5

        def get_password(self, service: str, username: str) -> str | None:
            if service == "locked":
                raise KeyringLocked(TEXT)
            return TEXT if (service, username) == ("isthmus", "api") else None

        def set_password(self, service: str, username: str, password: str) -> None:
            raise KeyringLocked

    class PlainFile(Vault):
        priority = 0.5

    keyring.set_keyring(Vault())
    assert read_secret("keyring:isthmus/api").reveal() == TEXT
    with pytest.raises(SecretError, match="keyring set isthmus other"):
        read_secret("keyring:isthmus/other")
    with pytest.raises(SecretError, match="needs keyring:service/name"):
        read_secret("keyring:isthmus")
    with pytest.raises(SecretError, match=r"does not answer \(KeyringLocked\)") as caught:
        read_secret("keyring:locked/api")
    assert TEXT not in "".join(traceback.format_exception(caught.value))
    keyring.set_keyring(PlainFile())
    with pytest.raises(SecretError, match="no safe keyring"):
        read_secret("keyring:isthmus/api")


@pytest.mark.usefixtures("backends")
def test_keyring_fails_closed() -> None:
    from keyring.backends import fail, null

    for backend in (fail.Keyring(), null.Keyring()):
        keyring.set_keyring(backend)
        with pytest.raises(SecretError, match="no safe keyring"):
            read_secret("keyring:isthmus/api")
