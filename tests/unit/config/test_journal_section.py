"""The settings of the desk's journal: an address without a password, and no other machine without TLS."""

from pathlib import Path

import pytest

from agent.app import open_journal
from agent.config import Loaded, load
from agent.domain.errors import ConfigError, SecretError

PASSWORD = "hunter2"


def section(folder: Path, text: str) -> Loaded:
    path = folder / "isthmus.toml"
    path.write_text(f"[journal]\n{text}\n")
    return load(path)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://desk@127.0.0.1:5432/isthmus",
        "postgres://desk@localhost/isthmus",
        "postgresql://desk@[::1]:5432/isthmus",
        "postgresql:///isthmus?host=/run/postgresql",
        "postgresql://desk@%2Frun%2Fpostgresql/isthmus",
        "postgresql://desk@one.example:5432,two.example:5433/isthmus?sslmode=verify-full&sslrootcert=/etc/desk.pem",
        "postgresql://desk@one.example/isthmus?sslmode=require",
    ],
)
def test_good_addresses(url: str, tmp_path: Path) -> None:
    found = section(tmp_path, f'url = "{url}"').settings.journal
    assert found is not None
    assert (found.url, found.password, found.desk, found.lease_s, found.wait_s) == (url, "", "", 10, 15)


WRONG = {
    "a password in the address": (f'url = "postgresql://desk:{PASSWORD}@127.0.0.1/isthmus"', "put a reference to it into journal"),
    "a password among the options": (
        f'url = "postgresql://127.0.0.1/isthmus?password={PASSWORD}"',
        "does not belong in the address",
    ),
    "a key's password": (f'url = "postgresql://127.0.0.1/isthmus?sslpassword={PASSWORD}"', "does not belong in the address"),
    "another database": ('url = "mysql://127.0.0.1/isthmus"', "begins with postgresql://"),
    "no address": (f'url = "postgresql://desk:{PASSWORD}@[::1/isthmus"', "this is no address"),
    "another machine": ('url = "postgresql://desk@db.example/isthmus"', r"over TLS only; add \?sslmode=verify-full"),
    "a name that begins like ours": ('url = "postgresql://desk@localhost.example/isthmus"', "over TLS only"),
    "another machine among the options": ('url = "postgresql:///isthmus?host=db.example"', "over TLS only"),
    "one of two is another machine": ('url = "postgresql://desk@127.0.0.1,db.example/isthmus"', "over TLS only"),
    "an address that numbers another machine": ('url = "postgresql:///isthmus?hostaddr=192.0.2.1"', "over TLS only"),
    "TLS if the server likes": ('url = "postgresql://desk@db.example/isthmus?sslmode=prefer"', "over TLS only"),
    "no url": ("lease_s = 10", "journal.url is missing; add it"),
    "an odd desk": ('url = "postgresql:///isthmus"\ndesk = "a b"', "journal.desk"),
    "a lease too short": ('url = "postgresql:///isthmus"\nlease_s = 1', "journal.lease_s: .*greater than or equal to 2"),
    "a key that is none": ('url = "postgresql:///isthmus"\nleases = 1', "unknown key journal.leases; did you mean lease_s"),
}


@pytest.mark.parametrize(("text", "words"), WRONG.values(), ids=WRONG)
def test_mistakes_are_named_and_no_password_is_repeated(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        section(tmp_path, text)
    assert PASSWORD not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_password_is_a_reference(tmp_path: Path) -> None:
    loaded = section(tmp_path, f'url = "postgresql://desk@127.0.0.1:1/isthmus"\npassword = "{PASSWORD}"')
    with pytest.raises(SecretError, match="given by reference") as caught:
        open_journal(loaded)
    assert PASSWORD not in str(caught.value)
