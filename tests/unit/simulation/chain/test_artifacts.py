"""The supply of contracts: pinned, verified, and the same each time."""

import json
import re
import sysconfig
from pathlib import Path

import msgspec
import pytest

from agent.simulation.chain.artifacts import (
    LOCK_PATH,
    Artifact,
    ArtifactError,
    cache_dir,
    data_dir,
    lock,
    node,
    own,
    read_bundle,
    tarball,
    third_party,
    verify,
)
from agent.simulation.chain.compile import compile_own, compile_sources, render

SMALL = "canonical-weth@1.4.0"


def test_the_lock_pins_everything_it_names() -> None:
    pinned = lock()
    named = [*pinned.contracts.values(), *pinned.literals.values(), *pinned.compilers.values(), *pinned.anvil.values()]
    packages = {item.package for item in named} | {source.package for source in pinned.sources.values()}
    assert packages == set(pinned.packages)
    assert all(re.fullmatch(r"sha512-[A-Za-z0-9+/]{86}==", integrity) for integrity in pinned.packages.values())


def test_the_lock_names_no_host() -> None:
    assert "://" not in LOCK_PATH.read_text()


def test_every_locked_contract_can_be_read() -> None:
    for name in lock().contracts:
        artifact = third_party(name)
        assert artifact.bytecode.startswith("0x6"), name
        assert artifact.abi, name


def test_a_changed_tarball_is_refused(tmp_path: Path) -> None:
    content = bytearray(tarball(SMALL).read_bytes())
    content[len(content) // 2] ^= 1
    path = tmp_path / tarball(SMALL).name
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="does not match the lock file"):
        verify(path, lock().packages[SMALL])
    with pytest.raises(ArtifactError, match="does not match the lock file"):
        tarball(SMALL, folder=tmp_path)


def test_a_changed_lock_is_refused() -> None:
    other = lock().packages["@uniswap/v2-core@1.0.1"]
    tampered = msgspec.structs.replace(lock(), packages=lock().packages | {SMALL: other})
    with pytest.raises(ArtifactError, match="does not match the lock file"):
        read_bundle(tampered, cache_dir() / "tarballs")


def test_an_unlocked_package_is_never_fetched(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is not in"):
        tarball("left-pad@1.3.0", folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_missing_node_is_one_line_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    with pytest.raises(ArtifactError, match=r"install Node\.js") as caught:
        node()
    assert "\n" not in str(caught.value)


def test_node_is_found_in_the_virtual_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "node"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    assert node() == str(program)


def test_the_committed_bytecode_is_what_the_sources_compile_to() -> None:
    made = compile_own(LOCK_PATH.parents[3] / "contracts")
    committed = {path.stem: path.read_bytes() for path in data_dir("abis").glob("*.json")}
    assert {name: render(artifact) for name, artifact in made.items()} == {name: committed[name] for name in made}


def test_a_refused_source_carries_the_compiler_s_words() -> None:
    with pytest.raises(ArtifactError, match="ParserError"):
        compile_sources("0.8.30", {"a.sol": "contract {"}, {})


def test_own_contracts_load_without_a_compiler() -> None:
    artifact = own("SandboxTether")
    assert isinstance(artifact, Artifact)
    (transfer,) = [entry for entry in artifact.abi if entry.get("name") == "transfer"]
    assert transfer["outputs"] == []
    assert json.dumps(artifact.abi)
