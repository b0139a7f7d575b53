"""A node as a child process: found by the port that it prints, logged to a file, and never left behind.

Both kinds of chain print `Listening on 127.0.0.1:PORT` when they are ready. On Linux the kernel ends the child when its
parent dies, even by `kill -9` (through `setpriv`, part of every util-linux); elsewhere an exit hook does.
"""

import atexit
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
_LISTENING = re.compile(rb"Listening on 127\.0\.0\.1:(\d+)")
# The kernel counts a child as orphaned when the THREAD that started it ends, so one thread that lives as long as the
# program starts them all.
_STARTER = ThreadPoolExecutor(1, "isthmus-child")


class ChildError(Exception):
    """The node did not start; the message carries the end of its log."""


class Child:
    """A running node process and the port it listens on."""

    def __init__(self, command: list[str], *, log_path: Path | None = None, environment: dict[str, str] | None = None) -> None:
        if log_path is None:
            handle, name = tempfile.mkstemp(prefix="isthmus-chain-", suffix=".log")
            self._log, self.log_path, self._owns_log = open(handle, "wb"), Path(name), True  # noqa: SIM115, PTH123
        else:
            self._log, self.log_path, self._owns_log = log_path.open("wb"), log_path, False
        self.process = _STARTER.submit(_start, command, self._log, environment).result()
        atexit.register(self.stop)
        self.port = self._wait_for_port()

    @property
    def url(self) -> str:
        """The address of the node's JSON-RPC."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self.process.poll() is None

    def stop(self) -> None:
        """End the process in order (Anvil writes its dump then), by force after ten seconds; safe to repeat."""
        atexit.unregister(self.stop)
        if self.alive:
            self.process.send_signal(signal.SIGINT if sys.platform != "win32" else signal.SIGTERM)
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._log.close()
        if self._owns_log:
            self.log_path.unlink(missing_ok=True)

    def _wait_for_port(self) -> int:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not (match := _LISTENING.search(self.log_path.read_bytes())):
            if not self.alive or time.monotonic() > deadline:
                tail = self.log_path.read_bytes()[-500:].decode(errors="replace").strip()
                self.stop()
                raise ChildError(f"the chain did not start: {tail}")
            time.sleep(0.003)
        return int(match[1])


def _start(command: list[str], log: BinaryIO, environment: dict[str, str] | None) -> subprocess.Popen[bytes]:
    bound = shutil.which("setpriv") if sys.platform == "linux" else None
    prefix = [bound, "--pdeathsig", "SIGTERM", "--"] if bound else []
    # Its own process group: Ctrl-C goes to the agent alone, which stops its chain in order.
    return subprocess.Popen(
        prefix + command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    )
