"""Starts commands sooner: what every one of them loads of others is loaded once, and each is a fork of that, a process of its own.

Nothing of the agent is loaded beforehand, so a command finds itself as `python -m agent` would. One connection is one command:
a line of JSON with its arguments, folder, environment and files; its process id comes back, and at its end how it ended.
"""

import contextlib
import importlib
import json
import os
import runpy
import signal
import socket
import sys
from pathlib import Path
from typing import Any

LOADED = (
    "aiohttp", "apscheduler.schedulers.asyncio", "asyncio", "coincurve", "eth_abi", "eth_account", "msgspec", "numpy",
    "prometheus_client", "pydantic", "rich.console", "rich.table", "sqlite3", "structlog", "typer", "web3",
)  # fmt: skip
REQUEST_MAX = 4 << 20


def serve(path: str) -> None:
    """Until it is killed."""
    for name in LOADED:
        importlib.import_module(name)
    sys.path[0] = ""  # as of `python -m`
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(16)
        os.write(1, b"ready\n")
        while True:
            line, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                supervise(line)
            line.close()


def supervise(line: socket.socket) -> None:
    """In a process between: it waits for the command, so that nobody else has to."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with contextlib.suppress(OSError), line.makefile("rwb") as wire:
        request = json.loads(wire.readline(REQUEST_MAX))
        child = os.fork()
        if child == 0:
            line.close()
            os._exit(work(request))
        wire.write(b"%d\n" % child)
        wire.flush()
        _, status = os.waitpid(child, 0)
        wire.write(b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def work(request: dict[str, Any]) -> int:
    """The command, in its folder, with its environment and its three files; its exit code."""
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["at"])
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        with Path(request[name]).open(mode, encoding="utf-8") as file:
            os.dup2(file.fileno(), number)
        setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - as long as the process lives
    sys.argv = ["isthmus", *request["arguments"]]
    try:
        runpy.run_module("agent", run_name="__main__", alter_sys=True)
        code: object = 0
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001 - it ends here, as it would end a process
        sys.excepthook(*sys.exc_info())
        code = 1
    if isinstance(code, str):
        sys.stderr.write(f"{code}\n")
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else 0 if code is None else 1


if __name__ == "__main__":
    serve(sys.argv[1])
