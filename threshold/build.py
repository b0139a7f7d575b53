"""Builds the threshold engine and installs it: `make mpc`, or `python threshold/build.py` in the environment that is to have it.

The wheel is kept in the cache, under the hash of everything it was made of, so a second build takes no time. The versions and
checksums of all crates stand in `dependencies.lock`; a crate under a licence that is not listed here ends the build.

Two faults of `cggmp24` are repaired on the way, see REPAIRS. Each line must be found exactly once, or there is no build: a new
version is read again before it is taken.

`--check` also holds the source against rustfmt and clippy, where they are installed; `--lock` writes `dependencies.lock` anew.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from agent.simulation.chain.artifacts import cache_dir

HERE = Path(__file__).resolve().parent
LOCK = HERE / "dependencies.lock"
SOURCES = (
    *(HERE / name for name in ("Cargo.toml", "rustfmt.toml", "isthmus_threshold.pyi")),
    LOCK,
    *sorted((HERE / "src").glob("*.rs")),
)
REPAIRED = "cggmp24"
REPAIRS = (
    # (file, what it says, what it should say)
    # A signer's two range proofs (psi0, psi1) pass when either of them is valid: the `?` returns "no fault" once the first one is.
    ("src/signing.rs", "j)];\n            pi_enc_elg::", "j)];\n            let wrong = pi_enc_elg::"),
    ("src/signing.rs", ".err()?;", ".err();\n            if wrong.is_some() {\n                return wrong;\n            }"),
    # Of the 128 challenges to ring-Pedersen parameters all but 32 are zero, because nothing counts the bits that were taken.
    ("src/zk/ring_pedersen_parameters.rs", "current >>= 1;", "current >>= 1;\n        bits_generated += 1;"),
)
RUST = (1, 85)
BUILD_S = 1_500
LICENCES = {"MIT", "Apache-2.0", "BSD-1-Clause", "BSD-2-Clause", "BSD-3-Clause", "Unicode-3.0", "Unlicense", "LLVM-exception"}
NEEDS_RUST = (
    f"the threshold engine needs Rust {RUST[0]}.{RUST[1]} or newer and a C linker; on Debian 12: apt-get install cargo-web, "
    "on Debian 13: apt-get install cargo. Everything else works without it"
)


def main() -> None:
    """Build if the cache has no wheel of these sources, then install."""
    environment = _toolchain()
    if "--lock" in sys.argv[1:]:
        write_lock(environment)
        return
    folder = cache_dir() / f"threshold-{_key(environment)}"
    if not list(folder.glob("*.whl")):
        with tempfile.TemporaryDirectory() as scratch:
            build(Path(scratch), folder, environment, check="--check" in sys.argv[1:])
    wheel = next(folder.glob("*.whl"))
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        "--no-deps",
        "--no-index",
        "--force-reinstall",
    ]
    _run([*pip, str(wheel)], HERE, environment)
    sys.stdout.write(f"{wheel.name}, {wheel.stat().st_size:,} bytes\n")


def build(scratch: Path, folder: Path, environment: dict[str, str], *, check: bool) -> None:
    """A wheel in `folder`, from a copy of the sources in `scratch`: the checkout stays clean."""
    stage(scratch)
    source = registry(scratch, environment)
    lock = re.sub(r"^checksum = ", f'source = "{source}"\nchecksum = ', LOCK.read_text(), flags=re.MULTILINE)
    (scratch / "Cargo.lock").write_text(lock)
    found = json.loads(_run(["cargo", "metadata", "--locked", "--format-version", "1"], scratch, environment))
    for package in found["packages"]:
        words = set(re.findall(r"[\w.-]+", package["license"] or "none")) - {"OR", "AND", "WITH"}
        if not words <= LICENCES:
            sys.exit(
                f"{package['name']} {package['version']} is under {package['license']}: use it only after reading that licence"
            )
    repair(scratch, next(Path(one["manifest_path"]).parent for one in found["packages"] if one["name"] == REPAIRED))
    if check and all(shutil.which(name, path=environment["PATH"]) for name in ("cargo-fmt", "cargo-clippy")):
        _run(["cargo", "fmt", "--check"], scratch, environment)
        _run(["cargo", "clippy", "--locked", "--release", "--", "-D", "warnings"], scratch, environment)
    made = scratch / "wheels"
    _run([sys.executable, "-m", "maturin", "build", "--release", "--locked", "--out", str(made)], scratch, environment)
    folder.mkdir(parents=True, exist_ok=True)
    for wheel in made.glob("*.whl"):
        shutil.copy(wheel, folder / f"{wheel.name}.part")
        (folder / f"{wheel.name}.part").rename(folder / wheel.name)


def stage(scratch: Path) -> None:
    """Everything that is compiled, without a lock."""
    for path in SOURCES:
        if path != LOCK:
            (scratch / path.relative_to(HERE)).parent.mkdir(exist_ok=True)
            shutil.copy(path, scratch / path.relative_to(HERE))


def registry(scratch: Path, environment: dict[str, str]) -> str:
    """What cargo calls its registry: the one thing in a lock that no file of ours names. Cargo writes a lock, and we look."""
    _run(["cargo", "generate-lockfile"], scratch, environment)
    found = set(re.findall(r'^source = "(.+)"$', (scratch / "Cargo.lock").read_text(), flags=re.MULTILINE))
    if len(found) != 1:
        sys.exit(f"all crates must come from one registry, these come from {len(found)}")
    return found.pop()


def repair(scratch: Path, original: Path) -> None:
    """Put a repaired copy of the crate in the place of the one that cargo fetched and verified."""
    copy = scratch / "repaired"
    shutil.copytree(original, copy)
    for file, wrong, right in REPAIRS:
        text = (copy / file).read_text(encoding="utf-8")
        if text.count(wrong) != 1:
            sys.exit(f"{REPAIRED}: {wrong!r} stands {text.count(wrong)} times in {file}, not once; read it and adapt REPAIRS")
        (copy / file).write_text(text.replace(wrong, right), encoding="utf-8")
    with (scratch / "Cargo.toml").open("a", encoding="utf-8") as manifest:
        manifest.write(f'\n[patch.crates-io]\n{REPAIRED} = {{ path = "repaired" }}\n')
    lock = (scratch / "Cargo.lock").read_text()
    unlocked = re.sub(rf'(name = "{REPAIRED}"\nversion = .*\n)source = .*\nchecksum = .*\n', r"\1", lock)
    (scratch / "Cargo.lock").write_text(unlocked)


def write_lock(environment: dict[str, str]) -> None:
    """The newest versions that Cargo.toml allows, without the registry's name."""
    with tempfile.TemporaryDirectory() as scratch:
        stage(Path(scratch))
        registry(Path(scratch), environment)
        LOCK.write_text(re.sub(r"^source = .*\n", "", (Path(scratch) / "Cargo.lock").read_text(), flags=re.MULTILINE))


def _toolchain() -> dict[str, str]:
    """The environment in which cargo is found and new enough; ends the program where there is none."""
    home = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}{os.pathsep}{home / 'bin'}"}
    environment.pop("CARGO_TARGET_DIR", None)
    if not all(shutil.which(name, path=environment["PATH"]) for name in ("cargo", "rustc", "cc")):
        sys.exit(NEEDS_RUST)
    version = re.match(r"rustc (\d+)\.(\d+)", _run(["rustc", "--version"], HERE, environment))
    if version is None or tuple(map(int, version.groups())) < RUST:
        sys.exit(NEEDS_RUST)
    return environment


def _key(environment: dict[str, str]) -> str:
    parts = [path.read_bytes() for path in (*SOURCES, Path(__file__))] + [_run(["rustc", "-vV"], HERE, environment).encode()]
    return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:16]


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    """A command's output; its own words and the end of the program when it fails."""
    program = shutil.which(command[0], path=environment["PATH"]) or command[0]
    done = subprocess.run(
        [program, *command[1:]], cwd=folder, env=environment, capture_output=True, text=True, timeout=BUILD_S, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(command[:3])} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
