"""The right to write a desk's journal: one agent at a time, for a while, renewed as long as it lives.

Taking the lease raises the desk's epoch, and every append checks its epoch in its own transaction: whoever was overtaken can store
nothing, whatever it believes. Beyond that an agent stops by its own clock, `MARGIN` of a lease before the server would let another
in, so that two never act at once. That clock counts from before a renewal was asked for and goes on while the machine sleeps.
"""

import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from typing import LiteralString, NamedTuple

from agent.domain.errors import JournalError
from agent.journal.codec import GENESIS
from agent.journal.database import Link, LinkLostError

RENEWALS = 3  # in the time of one lease
MARGIN = 0.1  # of a lease
RETRY_S = 0.1
LOOK_S = 0.25  # how often one who waits looks whether the lease is free
HOST_CHARS = 60


class Fence(NamedTuple):
    """What every write of an agent is checked against. The holder's name is unlike all others, because an epoch alone comes again
    when a database is restored from a copy.
    """

    desk: str
    epoch: int
    holder: str


class Taken(NamedTuple):
    """What the server wrote down when it gave the lease, and until when it holds by our own clock (seconds, `now_s`)."""

    fence: Fence
    head: tuple[int, str]
    until_s: float


def now_s() -> float:
    """A clock that never jumps, and counts the time that the machine slept where the system can tell."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def here() -> str:
    """This agent, for the people who find it in their way: a name that no other ever has."""
    return f"{socket.gethostname()[:HOST_CHARS]} pid {os.getpid()} run {secrets.token_hex(4)}"


def session_name(desk: str, epoch: int) -> str:
    return f"isthmus {desk} {epoch}"


def take(link: Link, desk: str, lease_s: float, wait_s: float) -> Taken:
    """The lease, once it is free, waiting at most `wait_s` and through restarts of the server.

    Raises JournalError that names the holder and when its lease ends.
    """
    ends_s, name = now_s() + wait_s, here()
    while True:
        try:
            found = _attempt(link, desk, name, lease_s)
            if isinstance(found, Taken):
                return found
            trouble = JournalError(f"another agent holds the desk {desk} ({found}); stop it, or raise journal.wait_s")
        except LinkLostError as e:
            trouble = e
        if now_s() >= ends_s:
            raise trouble
        time.sleep(min(LOOK_S, max(0.0, ends_s - now_s())))


def why_refused(link: Link, fence: Fence, seq: int) -> str:
    """What the server has against an append after the record `seq`. Raises JournalError."""
    found = link.run(_LOOK, (fence.desk,)).rows
    if not found:
        return f"the database holds no journal of the desk {fence.desk} any more"
    epoch, holder, left_s, until = found[0]
    if (epoch, holder) != fence[1:]:
        return f"another agent took over the desk {fence.desk} ({holder}, until {until})"
    if left_s <= 0:
        return f"its lease on the desk {fence.desk} ran out"
    return f"the database does not end at record {seq} any more: it lost records, or somebody else wrote some"


class Lease:
    """Owns the two threads that keep a lease: one renews it, one watches the clock, because the first may be stuck in the network.

    `on_lost` is called once, from any thread, the moment the lease is lost for good; it must not wait for anything.
    """

    def __init__(self, link: Link, taken: Taken, lease_s: float, on_lost: Callable[[], None]) -> None:
        self.fence = taken.fence
        self._link, self._lease_s, self._on_lost = link, lease_s, on_lost
        self._until_s = taken.until_s
        self._guard = threading.Lock()
        self._why = self._trouble = ""
        self._closing, self._over = threading.Event(), threading.Event()
        self._renewing = threading.Thread(target=self._renew, name="journal-renew", daemon=True)
        self._watching = threading.Thread(target=self._watch, name="journal-watch", daemon=True)
        self._renewing.start()
        self._watching.start()

    def refuse_lost(self) -> None:
        """Raises JournalError when the lease is no longer ours, or was given back."""
        self._look_at_the_clock()
        if self._why:
            raise JournalError(f"this agent may not write any more: {self._why}; start it again, and it waits for its turn")

    def lose(self, why: str) -> None:
        """It is over, whoever says so; the first reason counts."""
        with self._guard:
            if self._why:
                return
            self._why = why
        self._closing.set()
        self._over.set()
        self._link.cut()
        self._on_lost()

    def rest(self) -> None:
        """A moment between two attempts to reach the server. Raises JournalError when there is no time for another."""
        self._over.wait(RETRY_S)
        self.refuse_lost()

    def release(self) -> None:
        """Gives the lease back, so that the next agent need not wait for its end, and ends the threads."""
        self._closing.set()
        self._renewing.join()
        if not self._why:
            with contextlib.suppress(JournalError):  # then it ends by itself
                self._link.ask(_RELEASE, self.fence)
        self.lose("it gave its lease back")
        self._watching.join()
        self._link.close()

    def _renew(self) -> None:
        pause_s = self._lease_s / RENEWALS
        while not self._closing.wait(pause_s):
            from_s = now_s()
            try:
                if not self._link.run(_RENEW, (self._lease_s, *self.fence)).touched:
                    self.lose(why_refused(self._link, self.fence, 0))
                    return
                self._until_s = from_s + self._lease_s * (1 - MARGIN)
                pause_s, self._trouble = self._lease_s / RENEWALS, ""
            except JournalError as e:  # try again: the watch says when it is too late
                pause_s, self._trouble = RETRY_S, f" ({e})"

    def _watch(self) -> None:
        while not self._over.wait(max(0.0, self._until_s - now_s())):
            self._look_at_the_clock()

    def _look_at_the_clock(self) -> None:
        if now_s() >= self._until_s:
            self.lose(f"its lease on the desk {self.fence.desk} could not be renewed in time{self._trouble}")


def _attempt(link: Link, desk: str, name: str, lease_s: float) -> Taken | str:
    """The lease, or who holds it."""
    link.run(_BEGIN_DESK, (desk, GENESIS))
    epoch, holder, left_s, until = link.run(_LOOK, (desk,)).rows[0]
    if left_s <= 0:
        # An expired holder may be frozen in the middle of a transaction that locks the head: its sessions end here.
        link.run(_END_SESSIONS, (session_name(desk, epoch),))
        from_s = now_s()
        taken = link.run(_TAKE, (name, lease_s, desk)).rows
        if taken:
            number, seq, found = taken[0]
            return Taken(Fence(desk, number, name), (seq, found), from_s + lease_s * (1 - MARGIN))
    return f"{holder}, until {until}"


_BEGIN_DESK: LiteralString = """
INSERT INTO isthmus.head (desk, epoch, holder, expires_at, seq, hash) VALUES (%s, 0, '', 'epoch', 0, %s) ON CONFLICT DO NOTHING
"""
_LOOK: LiteralString = (
    "SELECT epoch, holder, extract(epoch FROM expires_at - clock_timestamp())::float8, to_char(expires_at, 'HH24:MI:SS \"UTC\"')"
    " FROM isthmus.head WHERE desk = %s"
)
_END_SESSIONS: LiteralString = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
    " WHERE application_name = %s AND usename = current_user AND pid <> pg_backend_pid()"
)
_TAKE: LiteralString = (
    "UPDATE isthmus.head SET epoch = epoch + 1, holder = %s, expires_at = clock_timestamp() + make_interval(secs => %s)"
    " WHERE desk = %s AND expires_at <= clock_timestamp() RETURNING epoch, seq, hash"
)
_RENEW: LiteralString = (
    "UPDATE isthmus.head SET expires_at = clock_timestamp() + make_interval(secs => %s)"
    " WHERE desk = %s AND epoch = %s AND holder = %s AND expires_at > clock_timestamp()"
)
_RELEASE: LiteralString = "UPDATE isthmus.head SET expires_at = clock_timestamp() WHERE desk = %s AND epoch = %s AND holder = %s"
