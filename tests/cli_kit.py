"""The command line as a user meets it: a process of its own, in a folder of its own."""

import json
import os
import shutil
import subprocess
import sys
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
    """Run one command to its end in the folder `at`, off a terminal."""
    command = [sys.executable, "-m", "agent", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=at, env=environment(**extra), input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    return Done(done.returncode, done.stdout, done.stderr)


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
