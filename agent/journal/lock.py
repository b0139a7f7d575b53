"""One writer: a lock that the operating system drops by itself when the process that holds it dies."""

import os
import sys
from pathlib import Path

from agent.domain.errors import JournalError

if sys.platform == "win32":
    import msvcrt

    def _take(fd: int) -> None:
        os.lseek(fd, 1 << 20, os.SEEK_SET)  # beyond the text, so that others can still read who holds it
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _take(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def take_lock(path: Path) -> int:
    """The descriptor that holds the lock until `release_lock`. Raises JournalError with the holder's pid if it is taken.

    The file stays behind on purpose: removing it would let two writers hold two locks of the same name. Network file systems
    that do not carry locks between machines do not protect against an agent on another machine.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as e:
        raise JournalError(
            f"the journal's lock {path} cannot be opened ({e.strerror}); check the folder and its permissions"
        ) from e
    try:
        _take(fd)
        os.truncate(path, 0)
        os.lseek(fd, 0, os.SEEK_SET)
        os.write(fd, str(os.getpid()).encode())
    except (BlockingIOError, PermissionError) as e:
        holder = _holder(fd)
        os.close(fd)
        raise JournalError(f"another agent runs on this journal (pid {holder}); stop it, or name another journal") from e
    except OSError as e:
        os.close(fd)
        raise JournalError(
            f"the journal's lock {path} cannot be written ({e.strerror}); free disk space or choose another folder"
        ) from e
    return fd


def release_lock(fd: int) -> None:
    os.close(fd)


def _holder(fd: int) -> str:
    os.lseek(fd, 0, os.SEEK_SET)
    text = os.read(fd, 20).decode("ascii", "replace").strip()
    return text if text.isdigit() else "unknown"
