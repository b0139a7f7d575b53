"""The kill latch: a file named KILL in the agent's home folder. While it is there, no order leaves; whoever removes it says why.

It is a file, because a file needs neither a running agent nor a journal that can be read: `isthmus kill` puts it there while the
agent hangs, and the agent looks for it before every send. Whatever is in its place (a folder, a dangling link, a file that nobody
can read) blocks as well.
"""

import contextlib
import json
import os
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from agent.domain.errors import JournalError

FILE, HISTORY = "KILL", "KILL.history"
REASON_MAX = 200  # characters
FILE_BYTES_MAX = 4_096


class FileLatch:
    """Satisfies the port Latch. Several processes may use the same one; it keeps nothing in memory."""

    __slots__ = ("_home", "_path", "path")

    def __init__(self, home: Path) -> None:
        """`home` is the agent's home folder; it need not exist yet."""
        self._home = home
        self.path = home / FILE
        self._path = os.fspath(self.path)

    def engaged(self) -> str:
        """Why nothing may be sent; empty when nothing is in the way. One `lstat`, a microsecond or two, while it is not engaged.

        Only "there is no such file" lets orders pass: every other answer of the system counts as engaged.
        """
        try:
            os.lstat(self._path)
        except FileNotFoundError:
            return ""
        except OSError as error:
            return f"the kill latch {self._path} cannot be looked at ({error.strerror}); mend that first"
        return self._reason()

    def engage(self, reason: str) -> None:
        """Block every new order from now on. The first reason counts, a later one only joins the history.

        The file appears at once, whole, mode 600, and is on the disk on return. On a full disk it is empty, which blocks as well.
        Raises JournalError when not even that is possible.
        """
        if not self.engaged():
            try:
                self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._put(_entry("engaged", reason))
            except OSError as error:
                raise JournalError(
                    f"the kill latch {self._path} cannot be set ({error.strerror}): stop the agent itself (kill -9), then mend that"
                ) from None
        with contextlib.suppress(OSError):  # the history is for later; the latch holds without it
            self._remember(_entry("engaged", reason))

    def lift(self, reason: str) -> bool:
        """Let orders pass again; False if none was blocked. JournalError, and it blocks on, when the history cannot be written."""
        was = self.engaged()
        if not was:
            return False
        try:
            self._remember(_entry("lifted", reason) | {"was": was})
            self.path.unlink(missing_ok=True)
            _sync(self._home)
        except OSError as error:
            raise JournalError(f"the kill latch {self._path} cannot be lifted ({error.strerror}): it still blocks") from None
        return True

    def __repr__(self) -> str:
        return f"FileLatch({self._path!r})"

    def _reason(self) -> str:
        try:
            with self.path.open("rb") as file:
                found = json.loads(file.read(FILE_BYTES_MAX))
            return f"killed at {_line(found['at'])}: {_line(found['reason'])}"
        except (OSError, ValueError, KeyError, TypeError):
            return f"killed; {self._path} does not say why (see {HISTORY} beside it)"

    def _put(self, entry: dict[str, object]) -> None:
        try:
            _write_whole(self.path, (json.dumps(entry) + "\n").encode())
        except OSError:  # no space for the reason: an empty file needs none
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600))

    def _remember(self, entry: dict[str, object]) -> None:
        handle = os.open(self._home / HISTORY, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write((json.dumps(entry) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())


def _entry(what: str, reason: str) -> dict[str, object]:
    at_ns = time.time_ns()
    at = datetime.fromtimestamp(at_ns // 10**9, UTC).isoformat(timespec="seconds")
    return {"what": what, "reason": _line(reason), "at": at, "at_ns": at_ns, "pid": os.getpid()}


def _line(text: object) -> str:
    """One line that can be printed, bounded."""
    flat = " ".join(str(text)[: 4 * REASON_MAX].split())
    return "".join(c for c in flat if c.isprintable())[:REASON_MAX]


def _write_whole(path: Path, raw: bytes) -> None:
    """Complete under its name, or not there; on the disk on return. Mode 600."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".kill-", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """Make a new or a removed name survive a power cut, where folders can be synced at all."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
