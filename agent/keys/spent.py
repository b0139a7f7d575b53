"""What went through the windows of rules, kept in a file: a restart forgets nothing, and many requests at once share one window.

What a request takes is set aside before its first signature and given back only when it is certain that nothing was signed. A
transaction that is signed again for the same number (to outbid itself) takes its room once: only one of them can happen.

The file is a line for each change, appended before the signature leaves the key. A last line that is not whole belongs to a
signature that never left; every other damage is refused. It is as safe as the key's own folder, and no safer.
"""

import os
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec

from agent.domain.errors import SignerError
from agent.keys.rules import Charge
from agent.ports import Clock

LINES_MAX = 50_000  # of the file, before it is written anew
ENTRIES_MAX = 20_000  # in all windows together
SECOND_NS = 1_000_000_000


class _Line(msgspec.Struct, frozen=True):
    """`request` took `units` of a rule's window until `until_ns`; the newest line of a rule, token and request counts."""

    request: str
    rule: str
    token: str
    units: str
    at_ns: int
    until_ns: int


_Key = tuple[str, str, str]  # rule, token, request


class Spent:
    """Owns the file and what is in the windows now. Safe to use from several threads."""

    def __init__(self, path: Path, clock: Clock, *, read_only: bool = False, lines_max: int = LINES_MAX) -> None:
        """Raises SignerError when the file is damaged: then nobody knows what was spent. `read_only`: to look beside its owner."""
        self._path, self._clock, self._is_read_only, self._lines_max = path, clock, read_only, lines_max
        self._guard = threading.Lock()
        self._taken: dict[_Key, _Line] = {}
        self._lines = 0
        self._read()

    def reserve(self, request: str, charges: Sequence[Charge]) -> "Reserved":
        """Set aside what a request takes from every window, or nothing of it. SignerError names the window that is used up."""
        if self._is_read_only:
            raise SignerError(f"policy: {self._path} was opened to look at it; only its owner sets anything aside")
        now_ns = self._clock.now_ns()
        with self._guard:
            self._forget(now_ns)
            lines, before = [], []
            for charge in charges:
                rule, key = charge.rule, (charge.rule.name, charge.token, request)
                old = self._taken.get(key)
                units = max(charge.units, int(old.units) if old else 0)
                wanted = msgspec.structs.replace(charge, units=units)
                if why := wanted.beyond(self._used(rule.name, charge.token, but=request)):
                    raise SignerError(f"policy: {why}")
                lines.append(_Line(request, rule.name, charge.token, str(units), now_ns, now_ns + rule.window_s * SECOND_NS))
                before.append((key, old))
            if len(self._taken) + len(lines) > ENTRIES_MAX:
                raise SignerError(f"policy: {ENTRIES_MAX} requests are in the windows of its rules; wait, or make them shorter")
            self._write(lines)
        return Reserved(self, before)

    def used(self, rule: str, token: str) -> int:
        """Units that the requests of now take of a rule's window."""
        with self._guard:
            self._forget(self._clock.now_ns())
            return self._used(rule, token)

    def _used(self, rule: str, token: str, but: str = "") -> int:
        return sum(int(one.units) for one in self._taken.values() if (one.rule, one.token) == (rule, token) and one.request != but)

    def put_back(self, before: Sequence[tuple[_Key, _Line | None]]) -> None:
        """Each as it was before. For `Reserved`."""
        with self._guard:
            now_ns = self._clock.now_ns()
            self._write([old or _Line(key[2], key[0], key[1], "0", now_ns, now_ns) for key, old in before])

    def _write(self, lines: Sequence[_Line]) -> None:
        """To the file first: with the operating system, as the journal's `process`."""
        text = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                if text and os.write(fd, text) != len(text):
                    raise OSError("it took only a part")
            finally:
                os.close(fd)
        except OSError as error:
            raise SignerError(f"policy: {self._path} cannot be written ({error}); nothing is signed without it") from None
        for line in lines:
            self._take(line)
        self._lines += len(lines)
        if self._lines > self._lines_max:
            self._write_anew()

    def _take(self, line: _Line) -> None:
        key = line.rule, line.token, line.request
        if int(line.units):
            self._taken[key] = line
        else:
            self._taken.pop(key, None)

    def _forget(self, now_ns: int) -> None:
        for key in [key for key, line in self._taken.items() if line.until_ns <= now_ns]:
            del self._taken[key]

    def _read(self) -> None:
        try:
            whole, _, _torn = self._path.read_bytes().rpartition(b"\n")
        except FileNotFoundError:
            return
        except OSError as error:
            raise SignerError(f"policy: {self._path} cannot be read ({error.strerror}); restore it") from None
        for number, text in enumerate(whole.split(b"\n") if whole else (), 1):
            try:
                line = msgspec.json.decode(text, type=_Line)
                self._take(line)
            except (msgspec.MsgspecError, ValueError):
                raise SignerError(
                    f"policy: line {number} of {self._path} is damaged; restore it, or remove the file to begin the windows anew"
                ) from None
            self._lines += 1
        self._forget(self._clock.now_ns())
        if not self._is_read_only:
            self._write_anew()

    def _write_anew(self) -> None:
        """What counts and nothing else, in place of the old file at once."""
        new = self._path.with_name(self._path.name + ".new")
        try:
            new.unlink(missing_ok=True)
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.writelines(msgspec.json.encode(line) + b"\n" for line in self._taken.values())
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        except OSError as error:
            raise SignerError(f"policy: {self._path} cannot be written ({error}); nothing is signed without it") from None
        self._lines = len(self._taken)


class Reserved:
    """What one request set aside."""

    def __init__(self, spent: Spent, before: Sequence[tuple[_Key, _Line | None]]) -> None:
        self._spent, self._before = spent, before

    def release(self) -> None:
        """Certainly nothing was signed. Once; later calls change nothing."""
        before, self._before = self._before, ()
        if before:
            self._spent.put_back(before)
