"""Whatever a user gets wrong: one line that says what to do, the right exit code, no traceback, nothing sent, nothing lost."""

import gzip
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from cli_kit import Done, environment, isthmus, started, variant

from agent.domain.events import IntentAccepted, OrderApproved, OrderSent
from agent.journal.sqlite import SqliteJournal

pytestmark = pytest.mark.xdist_group("mistakes")

SUBMIT = ("order", "submit", "ETH/USDT", "--side", "sell")
BRACKET = ("order", "bracket", "ETH/USDT", "--side", "buy", "--qty", "1")
QUICK_S = 30.0  # a number that is converted first would take minutes


def complains(done: Done, code: int, words: str) -> None:
    """One line on stderr, which matches, and nothing else that looks like trouble."""
    assert done.code == code, done
    assert "Traceback" not in done.out + done.err
    lines = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done
    assert re.search(words, lines[0]), lines[0]


def sent_nothing(home: Path) -> None:
    if (home / "journal.sqlite").exists():
        journal = SqliteJournal(home / "journal.sqlite", read_only=True)
        assert not [r for r in journal.read() if isinstance(r.event, IntentAccepted | OrderApproved | OrderSent)]
        journal.close()


# -- what is typed -----------------------------------------------------------------------------------------------------

TYPED = {
    "no such command": (("tarde",), 2, "No such command"),
    "no such option": ((*SUBMIT, "--qty", "1", "--slipage", "3"), 2, "No such option"),
    "no quantity": (SUBMIT, 2, "Missing option '--qty'"),
    "unknown asset": (("quote", "DOGE/USDT", "--side", "sell", "--qty", "1"), 2, "no venue of .* trades DOGE/USDT; name one of"),
    "not a pair": (("quote", "ETHUSDT", "--side", "sell", "--qty", "1"), 2, "is not a pair; write it as BASE/QUOTE"),
    "unknown side": (("quote", "ETH/USDT", "--side", "short", "--qty", "1"), 2, "'short' is not one of"),
    "too many decimals": ((*SUBMIT, "--qty", "1.0000000000000000001"), 2, "19 decimals, at most 18 are possible"),
    "not a number": ((*SUBMIT, "--qty", "NaN"), 2, "not a plain decimal number such as 12.5"),
    "infinite": ((*SUBMIT, "--qty", "Infinity"), 2, "not a plain decimal number"),
    "a number that takes half a minute": ((*SUBMIT, "--qty", "1e1000000"), 2, "not a plain decimal number"),
    "a number without an end": ((*SUBMIT, "--qty", "9" * 5_000), 2, "1 to 80 characters"),
    "other digits": ((*SUBMIT, "--qty", "١٢"), 2, "not a plain decimal number"),
    "negative": ((*SUBMIT, "--qty=-5"), 2, "not a plain decimal number"),
    "zero": ((*SUBMIT, "--qty", "0.000"), 2, "above zero"),
    "slippage below range": ((*SUBMIT, "--qty", "1", "--slippage-bps", "0"), 2, "--slippage-bps"),
    "slippage that is no number": ((*SUBMIT, "--qty", "1", "--slippage-bps", "1e1000000"), 2, "--slippage-bps"),
    "no slices": ((*SUBMIT, "--qty", "1", "--slices", "0"), 2, "--slices"),
    "not a duration": ((*SUBMIT, "--qty", "1", "--within", "soon"), 2, "not a duration; write 30s, 20m or 2h"),
    "a duration of a lifetime": ((*SUBMIT, "--qty", "1", "--within", "999999h"), 2, "longer than 31 days"),
    "odd strategy": ((*SUBMIT, "--qty", "1", "--strategy", "a b"), 2, "--strategy"),
    "detach from nobody": ((*SUBMIT, "--qty", "1", "--detach"), 2, "needs a running agent"),
    "unknown order": (("order", "show", "nonsense"), 2, "no order 'nonsense' in the journal"),
    "pause of nothing": (("order", "pause", "nonsense"), 2, "no live order 'nonsense'"),
    "amend of nothing": (("order", "amend", "nonsense", "--qty", "1"), 2, "no live order 'nonsense'"),
    "two triggers": ((*SUBMIT, "--qty", "1", "--stop", "9", "--take", "10"), 2, "one price, not for --stop and --take"),
    "activation alone": ((*SUBMIT, "--qty", "1", "--activation", "9"), 2, "--activation belongs to --trail"),
    "trail of nothing": ((*SUBMIT, "--qty", "1", "--trail", "x"), 2, "is not a distance; write 50bps"),
    "bracket the wrong way": ((*BRACKET, "--take-profit", "10", "--stop-loss", "20"), 2, "exchange the two prices"),
    "bracket without a stop": ((*BRACKET, "--take-profit", "10"), 2, "name one of --stop-loss and --trail"),
    "tune of nothing": (("order", "amend", "nonsense", "--tune", "x"), 2, "no live order"),
    "cancel of nothing": (("order", "cancel", "nonsense"), 2, "no live order 'nonsense'"),
    "reconcile without a journal": (("reconcile",), 2, "no journal yet"),
    "anchor without a journal": (("audit", "anchor"), 2, "no journal yet"),
    "anchor where nothing keeps it": (("audit", "anchor", "--venue", "binance"), 2, "binance keeps no heads .*audit_anchor"),
    "tape that is missing": (("demo", "--tape", "none.gz"), 2, "--tape none.gz: No such file"),
    "record over a file": (("record", "isthmus.toml"), 2, "exists already"),
    "record from nowhere": (("record", "t.gz", "--venue", "kraken"), 2, "no exchange kraken .*name one of binance"),
    "record into nowhere": (("record", "no/such/t.gz"), 2, "cannot write no/such/t.gz"),
    "init over a file": (("init", "isthmus.toml"), 2, "exists already and is not overwritten"),
    "init into nowhere": (("init", "no/such/place.toml"), 2, "cannot write no/such/place.toml"),
    "no settings": (("doctor", "-c", "none.toml", "--json"), 4, ""),
    "no settings to trade": (("order", "list", "-c", "none.toml"), 2, "cannot read none.toml: No such file.*isthmus init"),
    "a folder as settings": (("order", "list", "-c", "."), 2, "cannot read ."),
    "key without a terminal": (("keys", "new", "second"), 2, "no terminal to ask on"),
    "key by a missing variable": (("keys", "new", "b", "--password", "env:NO_SUCH_VARIABLE"), 2, "NO_SUCH_VARIABLE is not set"),
    "key by the password itself": (("keys", "new", "second", "--password", "hunter2"), 2, "by reference"),
    "key with an odd name": (("keys", "new", "../up", "--password", "file:wallet.password"), 2, "small letters"),
    "key that is there": (("keys", "new", "main", "--password", "file:wallet.password"), 2, "exists already and is not"),
    "descriptor that is closed": (("keys", "new", "second", "--password-fd", "77"), 2, "--password-fd 77 cannot be read"),
    "demo in a folder of others": (("demo", "--home", "."), 2, "is not a demo's folder"),
}  # fmt: skip


@pytest.fixture(scope="module")
def place(box: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with good settings, for mistakes that are only typed."""
    return variant(box, tmp_path_factory.mktemp("typed")).parent


@pytest.mark.parametrize(("arguments", "code", "words"), TYPED.values(), ids=TYPED)
def test_what_is_typed_wrong(arguments: tuple[str, ...], code: int, words: str, place: Path) -> None:
    before = sorted(path.name for path in place.iterdir() if path.name != "isthmus.log")
    began = time.monotonic()
    done = isthmus(*arguments, at=place)
    assert time.monotonic() - began < QUICK_S, "bounds are checked before anything is converted or connected"
    if words:
        complains(done, code, words)
    assert done.code == code
    assert "hunter2" not in done.out + done.err
    assert sorted(path.name for path in place.iterdir() if path.name != "isthmus.log") == before, "nothing new, nothing lost"


def test_errors_as_json(place: Path) -> None:
    for arguments, code in (((*SUBMIT, "--qty", "NaN"), 2), (("order", "show", "nonsense"), 2), (("tarde",), 2)):
        done = isthmus(*arguments, "--json", at=place)
        assert done.code == code
        assert done.json["status"] == "error"
        assert done.json["exit_code"] == code
        assert done.json["error"]
        assert "\n" not in done.json["error"]
        assert done.err == ""


def test_a_tape_that_is_none(place: Path, tmp_path: Path) -> None:
    plain, empty, torn, odd = (tmp_path / name for name in ("plain.gz", "empty.gz", "torn.gz", "odd.gz"))
    plain.write_text("not gzip at all")
    empty.write_bytes(gzip.compress(b""))
    odd.write_bytes(gzip.compress(b"17 this is no frame\n"))
    torn.write_bytes(gzip.compress(b'17 {"lastUpdateId": 1}\n' * 1_000)[:20])
    for tape in (plain, empty, torn, odd):
        complains(isthmus("sandbox", "up", "--home", tmp_path / "none", "--tape", tape, at=place), 2, "--tape .*`isthmus record`")
    assert not (tmp_path / "none").exists()


# -- what is in the settings ---------------------------------------------------------------------------------------------

CLOSED = "http://127.0.0.1:1"
SETTINGS = {
    # (what to change), exit code, words of the error; mistakes that are found while reading are in tests/unit/config
    "unknown key": ((("account = ", "acount = "),), 2, "unknown key acount; did you mean account"),
    "missing secret file": ((("file:exchange.secret", "file:none.secret"),), 2, "none.secret: No such file.*mode 600"),
    "missing variable": ((("file:exchange.secret", "env:NO_SUCH_VARIABLE"),), 2, "NO_SUCH_VARIABLE is not set; export it"),
    "wrong password": ((("file:wallet.password", "env:WRONG"),), 2, "the password does not open key main; check the password"),
    "password from nobody": ((("file:wallet.password", "ask"),), 2, "no terminal to ask on"),
    "no such key": ((('keystore = "main"', 'keystore = "other"'),), 2, "there is no key other in .*isthmus keys new other"),
    "wrong wallet": ((('wallet = "0x', 'wallet = "0x' + "11" * 20 + '"#'),), 2, r"\[wallet\] opens 0x.*; make them the same"),
    "wrong chain": ((("chain_id = 31337", "chain_id = 1"),), 4, "for chain 31337, the config says 1: correct rpc_url or chain_id"),
    "dead node": ((("rpc_url = ", f'rpc_url = "{CLOSED}"#'),), 4, "cannot be reached .*start the node, or correct rpc_url"),
    "dead exchange": ((("\nurl = ", f'\nurl = "{CLOSED}"#'),), 4, "binance: .*check the address"),
    "wrong API key": ((("file:exchange.secret", "env:WRONG"),), 4, "binance: "),
    "live and not armed": ((("\nurl = ", "\n# "), ("\nws_url = ", "\n# ")), 3, "VENUE_NOT_ARMED: binance .*set armed = true"),
    "home that cannot be": ((('home = "."', 'home = "isthmus.toml/home"'),), 2, "cannot make the home folder"),
}


@pytest.mark.parametrize(("changes", "code", "words"), SETTINGS.values(), ids=SETTINGS)
def test_what_the_settings_say_wrong(
    changes: tuple[tuple[str, str], ...], code: int, words: str, box: Path, tmp_path: Path
) -> None:
    config = variant(box, tmp_path, *changes)
    done = isthmus(*SUBMIT, "--qty", "1", at=config.parent, WRONG="hunter2")
    complains(done, code, words)
    assert "hunter2" not in done.out + done.err
    sent_nothing(tmp_path)


def test_a_secret_file_that_others_can_read(box: Path, tmp_path: Path) -> None:
    config = variant(box, tmp_path)
    (tmp_path / "exchange.secret").chmod(0o644)
    complains(isthmus(*SUBMIT, "--qty", "1", at=config.parent), 2, "open to other users; run: chmod 600")
    (tmp_path / "exchange.secret").chmod(0o600)
    (tmp_path / "keystore").chmod(0o755)
    complains(isthmus(*SUBMIT, "--qty", "1", at=config.parent), 2, "open to other users; run: chmod 700")
    sent_nothing(tmp_path)


def test_live_needs_arming_twice(box: Path, tmp_path: Path) -> None:
    changes = ("\nurl = ", "\n# "), ("\nws_url = ", "\n# "), ("account = ", "armed = true\naccount = ")
    config = variant(box, tmp_path, *changes)
    complains(isthmus(*SUBMIT, "--qty", "1", at=config.parent), 3, "VENUE_NOT_ARMED: binance .*; say --live")
    sent_nothing(tmp_path)


def test_more_than_the_limits_allow(box: Path, tmp_path: Path) -> None:
    config = variant(box, tmp_path, ("[wallet]", '[risk]\norder_volume_max = { ETH = "0.5" }\n[wallet]'))
    done = isthmus(*SUBMIT, "--qty", "5", "--dry-run", "--json", at=config.parent)
    assert done.code == 3
    assert done.json["status"] == "DRY_RUN"
    refused = [one for one in done.json["orders"] if one["decision"] == "REFUSED"]
    assert refused
    assert all(reason["code"] for one in refused for reason in one["reasons"])
    sent_nothing(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    complains(isthmus("init", at=tmp_path), 2, "cannot write isthmus.toml: Permission denied")
    complains(isthmus("demo", at=tmp_path), 2, "Permission denied")


# -- servers that talk nonsense ------------------------------------------------------------------------------------------


class _Nonsense(BaseHTTPRequestHandler):
    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        body = b"<html>hello</html>"
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_DELETE = _answer  # noqa: N815 - names of the standard library

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def nonsense() -> Iterator[str]:
    """The address of a server that answers everything with a web page."""
    server = HTTPServer(("127.0.0.1", 0), _Nonsense)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("key", "words"), [("rpc_url", "does not speak JSON-RPC: check rpc_url"), ("\nurl", "not understood .*check url")]
)
def test_a_server_that_talks_nonsense(key: str, words: str, nonsense: str, box: Path, tmp_path: Path) -> None:
    config = variant(box, tmp_path, (f"{key} = ", f'{key} = "{nonsense}"#'))
    complains(isthmus(*SUBMIT, "--qty", "1", at=config.parent), 4, words)
    sent_nothing(tmp_path)


# -- twice ---------------------------------------------------------------------------------------------------------------


def test_a_sandbox_twice_and_no_sandbox_twice(box: Path, tmp_path: Path) -> None:
    complains(isthmus("sandbox", "up", "--home", box, at=tmp_path), 2, "already running .*`isthmus sandbox down` stops it")
    for _ in range(2):
        assert isthmus("sandbox", "down", "--home", tmp_path / "none", "--json", at=tmp_path).json == {"stopped": False}
    assert isthmus("sandbox", "status", "--home", tmp_path / "none", at=tmp_path).code == 4
    assert isthmus("sandbox", "status", "--home", box, "--json", at=tmp_path).json["running"] is True


def test_a_second_agent_on_the_same_journal(box: Path, tmp_path: Path) -> None:
    config = variant(box, tmp_path)
    first = started("run", at=config.parent)
    try:
        assert first.stdout is not None
        for line in first.stdout:
            if line.startswith("serving"):
                break
        complains(isthmus("run", at=config.parent), 2, "an agent is already running in .*; stop it")
    finally:
        first.terminate()
        out, err = first.communicate(timeout=30)
    assert first.returncode == 0, out + err
    assert "Traceback" not in out + err


def test_a_reader_that_leaves(place: Path) -> None:
    reader, writer = socket.socketpair()
    reader.close()
    command = [sys.executable, "-m", "agent", "--help"]
    done = subprocess.run(command, cwd=place, env=environment(), stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    writer.close()
    assert "Traceback" not in done.stderr
