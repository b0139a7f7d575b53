"""Turns Solidity into bytecode with the compiler's own JavaScript build, run by node: nothing is installed.

Two uses: Permit2, of which no package ships the creation bytecode, is compiled once into the cache; and this project's own
contracts are compiled into `abis/`, which is committed, so that a user needs no compiler:

    python -m agent.simulation.chain.compile
"""

import functools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from agent.simulation.chain.artifacts import (
    HERE,
    LOCK_PATH,
    Artifact,
    ArtifactError,
    cache_dir,
    digest,
    lock,
    node,
    read_texts,
    tarball,
    write_atomic,
)

OWN_COMPILER = "0.8.30"
OWN_SETTINGS = {
    "optimizer": {"enabled": True, "runs": 200},
    "evmVersion": "cancun",
    "metadata": {"bytecodeHash": "none"},  # else a comment or a path would change the bytecode
}
# The settings of the deployed Permit2; with any other its canonical address cannot be reached.
PERMIT2_SETTINGS = {
    "optimizer": {"enabled": True, "runs": 1_000_000},
    "viaIR": True,
    "metadata": {"bytecodeHash": "none"},
}
COMPILE_TIMEOUT_S = 300
_IMPORT = re.compile(r'^\s*import\s+(?:[^"\';]*?from\s+)?["\']([^"\']+)["\']\s*;', re.M)
_DRIVER = """const solc=require(process.argv[1]);
const compile=solc.cwrap('solidity_compile','string',['string','number','number']);
process.stdout.write(compile(require('fs').readFileSync(0,'utf8'),0,0));"""


@functools.cache
def permit2() -> Artifact:
    """Permit2, bit for bit as deployed on public chains; compiled on first use (10-30 s), then cached."""
    name = digest(LOCK_PATH.read_bytes(), json.dumps(PERMIT2_SETTINGS).encode())
    path = cache_dir() / f"permit2-{name}.json"
    if path.exists():
        return msgspec.json.decode(path.read_bytes(), type=Artifact)
    source = lock().sources["Permit2"]
    texts = read_texts(tarball(source.package), under="lib/permit2/")
    sources = _resolve(source.entry, source.roots, texts)
    made = compile_sources(source.compiler, sources, PERMIT2_SETTINGS)["Permit2"]
    write_atomic(path, msgspec.json.encode(made))
    return made


def compile_own(folder: Path) -> dict[str, Artifact]:
    """Compile every `*.sol` of `folder`; interfaces, which have no bytecode, are left out."""
    sources = {path.name: path.read_text() for path in sorted(folder.glob("*.sol"))}
    made = compile_sources(OWN_COMPILER, sources, OWN_SETTINGS)
    return {name: artifact for name, artifact in made.items() if artifact.bytecode != "0x"}


def compile_sources(version: str, sources: dict[str, str], settings: dict[str, Any]) -> dict[str, Artifact]:
    """Contract name -> artifact. Raises ArtifactError with the compiler's first message when it refuses the sources."""
    request = {
        "language": "Solidity",
        "sources": {name: {"content": text} for name, text in sources.items()},
        "settings": settings | {"outputSelection": {"*": {"*": ["abi", "evm.bytecode.object"]}}},
    }
    command = [node(), "-e", _DRIVER, str(_compiler(version))]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=COMPILE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ArtifactError(f"solc {version} took more than {COMPILE_TIMEOUT_S} s: try again on an idle machine") from error
    if done.returncode:
        raise ArtifactError(f"node could not run solc {version}: {done.stderr.strip()[-200:]}")
    reply = json.loads(done.stdout)
    errors = [e["formattedMessage"] for e in reply.get("errors", []) if e["severity"] == "error"]
    if errors:
        raise ArtifactError(f"solc {version} refuses the sources: {errors[0]}")
    return {
        name: Artifact(made["abi"], "0x" + made["evm"]["bytecode"]["object"])
        for unit in reply["contracts"].values()
        for name, made in unit.items()
    }


def main() -> None:
    """Regenerate `abis/` from `contracts/` in a checkout."""
    top = HERE.parents[2]
    for name, artifact in compile_own(top / "contracts").items():
        path = top / "abis" / f"{name}.json"
        path.write_bytes(render(artifact))
        sys.stdout.write(f"{path.relative_to(top)}\n")


def render(artifact: Artifact) -> bytes:
    """The text of a file in `abis/`: stable, one key a line, so that a change shows in a diff."""
    return msgspec.json.format(msgspec.json.encode(artifact), indent=1) + b"\n"


def _compiler(version: str) -> Path:
    """The compiler's JavaScript, extracted once into the cache."""
    item = lock().compilers[version]
    path = cache_dir() / f"soljson-{version}-{digest(lock().packages[item.package].encode())}.js"
    if not path.exists():
        text = read_texts(tarball(item.package), {item.path})[item.path]
        write_atomic(path, text.encode())
    return path


def _resolve(entry: str, roots: dict[str, str], texts: dict[str, str]) -> dict[str, str]:
    """The entry file and all that it imports, by the names under which the compiler asks for them."""
    found: dict[str, str] = {}
    queue = [entry]
    while queue:
        name = queue.pop()
        if name in found:
            continue
        prefix = next((p for p in roots if name.startswith(p)), None)
        if prefix is None:
            raise ArtifactError(f"the lock file names no folder for the import {name}")
        found[name] = texts[roots[prefix] + name.removeprefix(prefix)]
        queue += [_absolute(name, imported) for imported in _IMPORT.findall(found[name])]
    return found


def _absolute(importer: str, imported: str) -> str:
    if not imported.startswith("."):
        return imported
    parts = importer.split("/")[:-1]
    for part in imported.split("/"):
        if part == "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


if __name__ == "__main__":
    main()
