"""The command line as a user meets it: a process of its own, in a folder of its own."""

import atexit
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

TIMEOUT_S = 90
SECRET_FILES = ("wallet.password", "exchange.secret")


class Done(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def environment(**extra: str) -> dict[str, str]:
    """Ours without what would change how the command behaves."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ISTHMUS")}
    return kept | {"COLUMNS": "80", "NO_COLOR": ""} | extra


def isthmus(*arguments: str | Path, at: Path, stdin: str = "", timeout_s: float = TIMEOUT_S, **extra: str) -> Done:
    """Run one command to its end in the folder `at`, off a terminal: a process of its own, begun by the fork server."""
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / name for name in ("stdin", "stdout", "stderr")}
        files["stdin"].write_text(stdin, encoding="utf-8")
        request = {"arguments": [*map(str, arguments)], "at": str(at), "environment": environment(**extra)}
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(timeout_s)
            line.connect(_fork_server())
            line.sendall(json.dumps(request | {name: str(path) for name, path in files.items()}).encode() + b"\n")
            with line.makefile("rb") as told:
                child = int(told.readline())
                try:
                    code = int(told.readline())
                except TimeoutError:
                    os.kill(child, signal.SIGKILL)
                    raise
        return Done(code, files["stdout"].read_text(encoding="utf-8"), files["stderr"].read_text(encoding="utf-8"))


@functools.cache
def _fork_server() -> str:
    """Where it listens; it ends with this process of the tests."""
    folder = tempfile.mkdtemp()
    path = str(Path(folder) / "fork.sock")
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("fork_server.py")), path], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"

    def end() -> None:
        server.kill()
        server.wait()
        server.stdout.close()  # type: ignore[union-attr]
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    return path


def started(*arguments: str | Path, at: Path, **extra: str) -> "subprocess.Popen[str]":
    """A command that keeps running."""
    command = [sys.executable, "-m", "agent", *map(str, arguments)]
    return subprocess.Popen(command, cwd=at, env=environment(**extra), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def variant(box: Path, folder: Path, *changes: tuple[str, str]) -> Path:
    """The sandbox's settings, changed, in a home of their own with the same key and secrets."""
    text = (box / "isthmus.toml").read_text()
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    shutil.copytree(box / "keystore", folder / "keystore")
    for name in SECRET_FILES:
        shutil.copy2(box / name, folder / name)
    path = folder / "isthmus.toml"
    path.write_text(text)
    return path
