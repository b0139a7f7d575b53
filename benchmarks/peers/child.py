"""A peer in a process of its own: one JSON object a line each way, one question at a time.

The peer times itself (`ns`: the nanoseconds of each call), so neither the pipe nor JSON is in its times; it works only while it is
asked, so the sides take turns.
"""

import contextlib
import select
import subprocess
import tempfile
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import msgspec

from benchmarks.measure import Turn
from benchmarks.peers.environments import PeerMissingError, command

PATIENCE_S = 600.0  # for one answer


class Child:
    """Owns the process. Raises PeerMissingError without its environment, RuntimeError when the peer fails or is silent."""

    def __init__(self, name: str) -> None:
        line, environ = command(name)
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 -- lives as long as the process
        self._process = subprocess.Popen(
            line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, env=environ, bufsize=0
        )
        self._left = b""
        self.versions: dict[str, str] = self._answer()["versions"]

    def ask(self, job: str, **fields: Any) -> dict[str, Any]:
        """The answer to one question."""
        assert self._process.stdin is not None
        text = memoryview(msgspec.json.encode({"job": job, **fields}) + b"\n")
        while text:
            text = text[self._process.stdin.write(text) :]
        return self._answer()

    def turn(self, job: str, **fields: Any) -> Turn:
        """The question as a turn of a comparison."""

        def asked() -> list[int]:
            taken: list[int] = self.ask(job, **fields)["ns"]
            return taken

        return asked

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._said.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        parts = [self._left]
        while b"\n" not in parts[-1]:
            ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE_S)
            part = self._process.stdout.read(1 << 20) if ready else b""
            if not part:
                raise RuntimeError(self._trouble("stopped" if ready else f"said nothing for {PATIENCE_S:.0f} s"))
            parts.append(part)
        line, _, self._left = b"".join(parts).partition(b"\n")
        found: dict[str, Any] = msgspec.json.decode(line)
        if "error" in found:
            raise RuntimeError(f"the peer answered: {found['error']}")
        return found

    def _trouble(self, what: str) -> str:
        self._said.seek(0)
        return f"the peer {what}: {' '.join(self._said.read().decode(errors='replace').split())[-400:]}"


@contextlib.contextmanager
def peer(name: str, missing: dict[str, str]) -> Iterator[Child | None]:
    """The peer, or None with one line in `missing` that says how to get it."""
    try:
        child = Child(name)
    except PeerMissingError as error:
        missing[name] = str(error)
        yield None
        return
    with child:
        yield child
