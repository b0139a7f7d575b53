"""A real PostgreSQL for tests: a cluster of its own on loopback, that tests may crash, freeze, demote and cut off.

Nothing of the machine's own servers is touched. As root the server runs as an unprivileged user, because it refuses to be root.
Where no server is installed the tests that want one skip; with ISTHMUS_REQUIRE_POSTGRES=1 they fail instead.
"""

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

ADMIN, AGENT = "admin", "desk"
START_S = 30
CHUNK = 1 << 16


class Server:
    """A cluster in a folder. Agents are the plain user `desk`; `admin` may do everything."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self.password = secrets.token_urlsafe(18)
        self.port = free_port()
        self._binaries, self.folder = binaries, folder
        self._process: subprocess.Popen[bytes] | None = None
        word = folder / "word"
        word.write_text(self.password)
        self._own(folder)
        self._own(word)
        options = ["--encoding=UTF8", "--locale=C", "--no-sync", "--auth=scram-sha-256", f"--pwfile={word}", f"--username={ADMIN}"]
        done = subprocess.run(
            [binaries / "initdb", *options, folder / "data"], capture_output=True, text=True, check=False, **self._as_user()
        )
        assert done.returncode == 0, done.stderr
        self.start()
        with self.admin() as session:
            session.execute(f"CREATE ROLE {AGENT} LOGIN PASSWORD '{self.password}'")

    def start(self) -> None:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.folder,
            "shared_buffers": "16MB",
            "max_connections": 60,
        }
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._binaries / "postgres",
                    "-D",
                    self.folder / "data",
                    *(f"--{name}={value}" for name, value in settings.items()),
                ],
                stderr=log,
                stdout=log,
                **self._as_user(),
            )
        end = time.monotonic() + START_S
        while True:
            try:
                self.admin().close()
                return
            except psycopg.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > end:
                    raise AssertionError((self.folder / "log").read_text()[-2_000:]) from error
                time.sleep(0.02)

    def stop(self, number: int = signal.SIGINT) -> None:
        """SIGINT: in order, whoever is connected. SIGQUIT: at once, as a crash; the next start recovers."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(START_S)
            self._process = None

    def crash(self) -> None:
        self.stop(signal.SIGQUIT)

    def demote(self) -> None:
        """Comes back as a copy that waits for a primary, until `promote`."""
        self.stop()
        (self.folder / "data" / "standby.signal").touch()
        self._own(self.folder / "data" / "standby.signal")
        self.start()

    def promote(self) -> None:
        with self.admin() as session:
            session.execute("SELECT pg_promote()")

    def new_database(self, name: str) -> str:
        with self.admin() as session:
            session.execute(f"CREATE DATABASE {name} OWNER {AGENT}")
        return name

    def url(self, database: str, port: int = 0, user: str = AGENT) -> str:
        return f"postgresql://{user}@127.0.0.1:{port or self.port}/{database}"

    def admin(self, database: str = "postgres") -> "psycopg.Connection[Any]":
        return psycopg.connect(self.url(database, user=ADMIN), password=self.password, autocommit=True, connect_timeout=5)

    def _own(self, path: Path) -> None:
        if user := self._as_user().get("user"):
            shutil.chown(path, user, self._as_user()["group"])

    def _as_user(self) -> dict[str, Any]:
        place: dict[str, Any] = {"cwd": self.folder, "env": {"PATH": os.environ["PATH"], "LC_ALL": "C"}}
        return place | (unprivileged() if os.geteuid() == 0 else {})


class Cable:
    """The network between an agent and the server: it can freeze, and it can lose one message and break."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._flows = threading.Event()
        self._flows.set()
        self._is_closed = False
        self._ends: list[socket.socket] = []
        self._lost_request = self._lost_reply = b""
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def freeze(self) -> None:
        """Nothing passes, nothing breaks: as if the network were gone."""
        self._flows.clear()

    def thaw(self) -> None:
        self._flows.set()

    def lose_request(self, with_text: bytes) -> None:
        """The next message to the server that holds the text never arrives, and its connection breaks."""
        self._lost_request = with_text

    def lose_reply(self, with_text: bytes) -> None:
        """The server does what the next message with that text says; its answer is lost, and the connection breaks."""
        self._lost_reply = with_text

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self.thaw()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._ends:
            _break(end)
        for thread in self._threads:
            thread.join(10)
        for end in self._ends:
            end.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._to))
            self._ends += [near, far]
            is_deaf = threading.Event()
            for pump in (self._requests, self._replies):
                thread = threading.Thread(target=pump, args=(near, far, is_deaf), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _requests(self, near: socket.socket, far: socket.socket, is_deaf: threading.Event) -> None:
        for chunk in self._chunks(near):
            if self._lost_request and self._lost_request in chunk:
                self._lost_request = b""
                break
            if self._lost_reply and self._lost_reply in chunk:
                self._lost_reply = b""
                is_deaf.set()
            if not _passed(far, chunk):
                break
        _break(near, far)

    def _replies(self, near: socket.socket, far: socket.socket, is_deaf: threading.Event) -> None:
        for chunk in self._chunks(far):
            if is_deaf.is_set() or not _passed(near, chunk):
                break
        _break(near, far)

    def _chunks(self, end: socket.socket) -> Iterator[bytes]:
        while True:
            try:
                chunk = end.recv(CHUNK)
            except OSError:
                return
            self._flows.wait()
            if not chunk or self._is_closed:
                return
            yield chunk


def _passed(end: socket.socket, chunk: bytes) -> bool:
    try:
        end.sendall(chunk)
    except OSError:
        return False
    return True


def _break(*ends: socket.socket) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def unprivileged() -> dict[str, Any]:
    """For `subprocess`: another user than root."""
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            found = pwd.getpwnam(name)
            return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
    raise AssertionError("there is neither a user postgres nor a user nobody to run the server as")


def find_binaries() -> Path | None:
    """The folder with `initdb` and `postgres`: PG_BIN, PATH, or where Debian keeps its newest."""
    places = [Path(os.environ["PG_BIN"])] if "PG_BIN" in os.environ else []
    if (on_path := shutil.which("initdb")) is not None:
        places.append(Path(on_path).resolve().parent)
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: _number(folder.parent.name), reverse=True)
    return next((place for place in places if (place / "initdb").is_file() and (place / "postgres").is_file()), None)


@contextlib.contextmanager
def running_server() -> Iterator[Server]:
    """A cluster for as long as the block lasts."""
    binaries = find_binaries()
    if binaries is None:
        reason = "no PostgreSQL server is installed here (initdb, postgres); install one, or name its folder in PG_BIN"
        if os.environ.get("ISTHMUS_REQUIRE_POSTGRES"):
            pytest.fail(reason)
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    server = None
    try:
        server = Server(binaries, folder)
        yield server
    finally:
        if server is not None:
            server.stop(signal.SIGQUIT)
        shutil.rmtree(folder, ignore_errors=True)


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0
