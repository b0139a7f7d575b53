"""A line to the desk's database: one PostgreSQL session that another thread may cut, and words for what goes wrong.

Only a server that takes writes is spoken to: what a copy of it says may be old. Every wait ends: connecting and dead networks after
`Place.silent_s`, and whatever is under way the moment somebody calls `cut`.
"""

import contextlib
import math
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any, LiteralString, NamedTuple

import msgspec
import psycopg

from agent.domain.errors import JournalError
from agent.journal.sqlite import Durability

LOCK_S = 5  # for a row that another session changes
IDLE_S = 5  # a session that falls silent in the middle of a transaction is ended by the server, and its locks with it
SILENT_S = 5.0  # how long the network may owe us an answer or a connection
CONNECT_S_MIN = 2  # less is not taken by the library
ERROR_CHARS = 240


class Place(msgspec.Struct, frozen=True):
    """Where the journal is kept, and how safely. `password` fetches it, so that no value or traceback of ours holds it."""

    url: str
    durability: Durability
    password: Callable[[], str] | None = None
    silent_s: float = SILENT_S  # for each host that the address names


class LinkLostError(JournalError):
    """The session is gone, or there is none to be had: what was under way happened or did not, and may be asked for again."""


class Answer(NamedTuple):
    rows: list[tuple[Any, ...]]
    touched: int  # how many were returned or changed


class Link:
    """One session, made at its first use and made anew after it was lost. For one thread; `cut` is for every other."""

    def __init__(self, place: Place, name: str) -> None:
        self.name = name  # as the server's list of sessions shows it
        self._place = place
        self._session: psycopg.Connection[tuple[Any, ...]] | None = None
        self._plug: socket.socket | None = None
        self._is_cut = False

    def run(self, query: LiteralString, arguments: Sequence[object] = ()) -> Answer:
        """One statement, which is one transaction. Raises LinkLostError, or JournalError with what the server has against it."""
        session = self._session or self._connect()
        try:
            cursor = session.execute(query, arguments or None, binary=True)
            rows = cursor.fetchall() if cursor.description else []
        except psycopg.Error as e:
            if session.closed:
                self.close()
                raise LinkLostError(f"the connection to the journal's database was lost ({flat(e)}); see to the server") from e
            raise JournalError(f"the journal's database refused ({flat(e)}); see to the server") from e
        return Answer(rows, cursor.rowcount)

    def ask(self, query: LiteralString, arguments: Sequence[object] = ()) -> Answer:
        """As `run`, for what may be done twice: once more over a new session when the first turns out to be gone."""
        try:
            return self.run(query, arguments)
        except LinkLostError:
            return self.run(query, arguments)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All statements of the block, or none."""
        self.run("BEGIN")
        try:
            yield
            self.run("COMMIT")
        except LinkLostError:
            raise  # nothing is left to roll back
        except JournalError:
            self.run("ROLLBACK")
            raise

    def rename(self, name: str) -> None:
        """Let the server's list of sessions say what this one is now."""
        self.name = name
        self.run("SELECT set_config('application_name', %s, false)", (name,))

    def cut(self) -> None:
        """From any thread and for good: whoever waits for the server stops waiting. The server may still do what it was sent."""
        self._is_cut = True
        plug = self._plug
        if plug is not None:
            _shut(plug)

    def close(self) -> None:
        """Ends the session; the next `run` would make another."""
        session, self._session = self._session, None
        plug, self._plug = self._plug, None
        if session is not None:
            session.close()
        if plug is not None:
            plug.close()

    def _connect(self) -> "psycopg.Connection[tuple[Any, ...]]":
        self._refuse_cut()
        session = _open(self._place, self.name)
        self._session = session
        # A second descriptor of the same socket: it stays ours when the library closes its own, so `cut` never meets a stranger's.
        self._plug = socket.fromfd(session.fileno(), socket.AF_INET, socket.SOCK_STREAM)  # of whatever family
        if self._is_cut:  # while we connected
            self.close()
            self._refuse_cut()
        try:
            self._settle_in()
        except JournalError:
            self.close()
            raise
        return session

    def _settle_in(self) -> None:
        """The session's rules. Raises LinkLostError for a copy of a server, JournalError for one that forgets at a power loss."""
        commit = "on" if self._place.durability == "power" else "local"
        (found,) = self.run(_SETTLE_IN, (commit, f"{LOCK_S}s", f"{IDLE_S}s")).rows
        is_copy, fsync = found[-2:]
        if is_copy:
            raise LinkLostError("the journal's database is a copy of another server (in recovery); name the one that takes writes")
        if fsync != "on" and self._place.durability == "power":
            raise JournalError('the journal\'s database runs with fsync off; turn it on, or set durability = "process"')

    def _refuse_cut(self) -> None:
        if self._is_cut:
            raise LinkLostError("the line to the journal's database was cut; start the agent again")


def flat(e: psycopg.Error) -> str:
    """An error of the database as one line."""
    return " ".join((e.diag.message_primary or str(e) or type(e).__name__).split())[:ERROR_CHARS]


def _open(place: Place, name: str) -> "psycopg.Connection[tuple[Any, ...]]":
    try:
        return psycopg.connect(
            place.url,
            password=None if place.password is None else place.password(),
            autocommit=True,
            application_name=name,
            connect_timeout=max(CONNECT_S_MIN, math.ceil(place.silent_s)),
            tcp_user_timeout=math.ceil(place.silent_s * 1_000),
            keepalives_idle=math.ceil(place.silent_s),
            client_encoding="utf8",
        )
    except psycopg.Error as e:
        trouble = flat(e)
    # Raised out here, so that no frame that knows the password hangs on the error.
    raise LinkLostError(
        f"the journal's database cannot be reached ({trouble}); start it, or correct journal.url and journal.password"
    )


def _shut(plug: socket.socket) -> None:
    try:
        plug.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the other side was faster


_SETTLE_IN: LiteralString = (
    "SELECT set_config('synchronous_commit', %s, false), set_config('lock_timeout', %s, false),"
    " set_config('idle_in_transaction_session_timeout', %s, false),"
    " set_config('default_transaction_isolation', 'read committed', false), set_config('timezone', 'UTC', false),"
    " pg_is_in_recovery(), current_setting('fsync')"
)
