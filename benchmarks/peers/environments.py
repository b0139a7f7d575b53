"""Where a peer's environment lives, and how it gets there: `python -m benchmarks peers [NAME]`.

Each is built once from its lock file (hashes, no addresses) in the cache folder that the sandbox chain uses too, under a name that
changes with the lock; deleting it is always safe. Install scripts of npm packages are not run.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from agent.simulation.chain.artifacts import ArtifactError, cache_dir, digest, node, npm

HERE = Path(__file__).parent
PATIENCE_S = 1_800
# Problems this small are solved fastest by one thread; several wait for one another, for milliseconds where the machine is busy.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


class PeerMissingError(Exception):
    """A peer that is not here; the message is one line and says what to do."""


class Environment(msgspec.Struct, frozen=True):
    """`title` is how people call it. `pythons`: the versions that it runs on, newest first; none: it runs on node."""

    name: str
    title: str
    lock: str
    pythons: tuple[tuple[int, int], ...] = ()

    @property
    def folder(self) -> Path:
        return HERE / self.name

    @property
    def home(self) -> Path:
        """Where it is, or will be."""
        return cache_dir() / "peers" / f"{self.name}-{digest((self.folder / self.lock).read_bytes())}"

    @property
    def is_installed(self) -> bool:
        return (self.home / ".ready").exists()


ENVIRONMENTS = {
    one.name: one
    for one in (
        Environment("solvers", "cvxpy, Clarabel, HiGHS, SCIP, scipy", "requirements.txt", ((3, 11), (3, 12), (3, 13))),
        Environment("uniswap", "Uniswap's smart-order-router", "package-lock.json"),
        Environment("nautilus", "NautilusTrader", "requirements.txt", ((3, 12), (3, 13))),
    )
}


def command(name: str) -> tuple[list[str], dict[str, str]]:
    """The command line that starts a peer, and its environment variables. Raises PeerMissingError."""
    one = ENVIRONMENTS[name]
    if not one.is_installed:
        if one.pythons:
            python_for(one)
        raise PeerMissingError(f"{one.title}: not installed; `python -m benchmarks peers {name}` installs it")
    if one.pythons:
        return [str(_python(one.home)), "-I", str(one.folder / "serve.py")], os.environ | ONE_THREAD
    return [_node(), str(one.folder / "serve.js")], os.environ | {"NODE_PATH": str(one.home / "node_modules")}


def install(name: str) -> Path:
    """Build an environment from its lock, unless it is there. Raises PeerMissingError when it cannot be had."""
    one = ENVIRONMENTS[name]
    if one.is_installed:
        return one.home
    python = python_for(one) if one.pythons else ""
    one.home.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(one.home, ignore_errors=True)  # half of one, left by an install that was stopped
    if one.pythons:
        _run(one, [python, "-m", "venv", str(one.home)])
        lock = str(one.folder / one.lock)
        pip = [str(_python(one.home)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]
        _run(one, [*pip, "--require-hashes", "--requirement", lock])
    else:
        one.home.mkdir()
        for file in ("package.json", one.lock):
            shutil.copy(one.folder / file, one.home / file)
        _run(one, [_npm(), "ci", "--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund", "--silent"], one.home)
    (one.home / ".ready").touch()
    return one.home


def python_for(one: Environment) -> str:
    """A Python that an environment can run on: this one, one on PATH, or one of pyenv's. Raises PeerMissingError without any."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    names = [f"python{major}.{minor}" for major, minor in one.pythons]
    found = [sys.executable, *(shutil.which(name) for name in names)]
    found += [str(path) for name in names for path in sorted(pyenv.glob(f"*/bin/{name}"))]
    for python in found:
        if python and _version(python) in one.pythons:
            return python
    wanted = " or ".join(f"{major}.{minor}" for major, minor in one.pythons)
    raise PeerMissingError(
        f"{one.title}: needs Python {wanted}, and none is on PATH; install one, then `python -m benchmarks peers {one.name}`"
    )


def _version(python: str) -> tuple[int, int] | None:
    """Asked, because a name on PATH may be a shim for a version that is not switched on."""
    question = "import sys; print(*sys.version_info[:2])"
    try:
        done = subprocess.run([python, "-c", question], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    major, minor = done.stdout.split()
    return int(major), int(minor)


def _python(home: Path) -> Path:
    return home / "Scripts" / "python.exe" if sys.platform == "win32" else home / "bin" / "python"


def _node() -> str:
    try:
        return node()
    except ArtifactError as error:
        raise PeerMissingError(str(error)) from error


def _npm() -> str:
    try:
        return npm()
    except ArtifactError as error:
        raise PeerMissingError(str(error)) from error


def _run(one: Environment, line: list[str], folder: Path | None = None) -> None:
    with tempfile.TemporaryFile("w+") as said:
        try:
            done = subprocess.run(line, cwd=folder, stdout=said, stderr=said, timeout=PATIENCE_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise PeerMissingError(
                f"{one.title}: took more than {PATIENCE_S} s to install: check the network and try again"
            ) from error
        if done.returncode:
            said.seek(0)
            last = " ".join(said.read().split())[-300:]
            raise PeerMissingError(f"{one.title}: could not be installed: check the network and try again ({last})")
