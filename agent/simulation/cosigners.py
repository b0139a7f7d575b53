"""A whole group of one shared key on this machine: three parties in folders, of which two run as daemons and one is the agent's.

For the demo and for tests, where all three lie under one roof and the key guards nothing. Each party has a password, settings and
a log of its own; the daemons are the real `isthmus cosigner serve`.
"""

import asyncio
import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from agent.domain.errors import SecretError, SignerError
from agent.keys.secrets import Secret

NAMES = ("agent", "first", "second")
SCRYPT_N = 2**12  # these shares guard nothing
START_S = 30
SETUP_S = 900  # of `aux` on a slow and busy machine
PASSWORD_FILE, SETTINGS_FILE, LOG_FILE = "password", "isthmus.toml", "said.log"
EMPTY_SETTINGS = 'home = "state"\n'

Tell = Callable[[str], None]


class SharedKey(msgspec.Struct, frozen=True):
    """What the agent's settings need: see `wallet_settings`. Seconds as this machine took."""

    address: str
    home: Path
    password: str
    primes_s: float
    keygen_s: float
    aux_s: float


class CosignerGroup:
    """Owns the folder and the daemons' processes. `close` ends them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    async def make(self, primes: Sequence[str] = (), tell: Tell = lambda _: None) -> SharedKey:
        """Make three parties and their key. Nothing runs afterwards: see `serve`.

        `primes`: hex, one for each party; without them they are made, some minutes on two cores. Raises SignerError, SecretError.
        """
        if primes and len(primes) != len(NAMES):
            raise SecretError(f"primes of {len(NAMES)} parties are needed, one line each; these are {len(primes)}")
        primes_s = await self._parties(primes, tell)
        try:
            await self.serve(EMPTY_SETTINGS)
            led = await self._lead(tell)
        finally:
            self.close()
        return SharedKey(led["address"], self.home("agent"), self.password("agent"), primes_s, led["keygen_s"], led["aux_s"])

    async def serve(self, settings: str) -> None:
        """Start both daemons with these settings, whose venues and rules say what they may sign. Raises SignerError."""
        for name in NAMES[1:]:
            (self.folder / name / SETTINGS_FILE).write_text(settings, encoding="utf-8")
            await asyncio.to_thread(self.start, name)

    def home(self, name: str) -> Path:
        return self.folder / name / "cosigner"

    def password(self, name: str) -> str:
        """As a reference."""
        return f"file:{(self.folder / name / PASSWORD_FILE).resolve()}"

    def start(self, name: str) -> dict[str, Any]:
        """What the daemon says about itself. Raises SignerError when it does not start; its log says why."""
        if self.is_running(name):
            raise SignerError(f"the cosigner {name} is running already")
        place = self.folder / name
        command = [sys.executable, "-m", "agent", "cosigner", "serve", "--json", "--home", "cosigner"]
        with (place / LOG_FILE).open("ab") as log:
            process = subprocess.Popen(
                [*command, "--password", f"file:{PASSWORD_FILE}"], cwd=place, stdout=subprocess.PIPE, stderr=log
            )
        self._processes[name] = process
        assert process.stdout is not None
        said = b""
        while not said.endswith(b"\n}\n") and (text := process.stdout.readline()):
            said += text
        with (place / LOG_FILE).open("ab") as log:
            log.write(said)
        told = json.loads(said) if said else {"status": "error", "error": "it said nothing"}
        if told.get("status") == "error":
            self.stop(name)
            raise SignerError(f"the cosigner {name} did not start: {told['error']}")
        return dict(told)

    def is_running(self, name: str) -> bool:
        return name in self._processes

    def pid(self, name: str) -> int:
        return self._processes[name].pid

    def kill(self, name: str) -> None:
        """At once, as a machine that loses its power."""
        self._end(name, subprocess.Popen.kill)

    def stop(self, name: str) -> None:
        """In order."""
        self._end(name, subprocess.Popen.terminate)

    def close(self) -> None:
        for name in tuple(self._processes):
            self.stop(name)

    def _end(self, name: str, how: Callable[["subprocess.Popen[bytes]"], None]) -> None:
        process = self._processes.pop(name, None)
        if process is not None:
            how(process)
            try:
                process.communicate(timeout=START_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()

    async def _parties(self, primes: Sequence[str], tell: Tell) -> float:
        from agent.keys.cosigner.home import Home

        clock, ports = asyncio.get_running_loop().time, _free_ports(len(NAMES))
        begun, entries = clock(), 'name = "sandbox"\n'
        homes: list[Home] = []
        for at, name in enumerate(NAMES):
            place = self.folder / name
            place.mkdir(mode=0o700, parents=True)
            _write_private(place / PASSWORD_FILE, secrets.token_hex(16))
            (place / SETTINGS_FILE).write_text(EMPTY_SETTINGS, encoding="utf-8")
            home = Home(self.home(name), self._secret(name), SCRYPT_N)
            entries += "\n" + home.make(name, f"127.0.0.1:{ports[at]}")
            homes.append(home)
        if not primes:
            tell("making the primes of three parties, some minutes …")
        await asyncio.gather(
            *(asyncio.to_thread(_give_primes, *one) for one in zip(homes, primes or [""] * len(homes), strict=True))
        )
        for name, home in zip(NAMES, homes, strict=True):
            home.close()
            (self.home(name) / "group.toml").write_text(entries, encoding="utf-8")
        return clock() - begun

    async def _lead(self, tell: Tell) -> dict[str, Any]:
        """`isthmus cosigner setup`, as the agent's party."""
        command = [sys.executable, "-m", "agent", "cosigner", "setup", "--home", "cosigner", "--json"]
        process = await asyncio.create_subprocess_exec(
            *(*command, "--password", f"file:{PASSWORD_FILE}"),
            cwd=self.folder / "agent",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stderr is not None
        assert process.stdout is not None
        try:
            async with asyncio.timeout(SETUP_S):
                while text := await process.stderr.readline():
                    tell(text.decode(errors="replace").strip())
                told: dict[str, Any] = json.loads(await process.stdout.read() or b"{}")
        except TimeoutError:
            raise SignerError(
                f"the set-up of the shared key did not end in {SETUP_S} s; try again on a machine less busy"
            ) from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if "address" not in told:
            raise SignerError(f"the shared key was not made: {told.get('error', 'the set-up said nothing')}")
        return told

    def _secret(self, name: str) -> Secret:
        return Secret((self.folder / name / PASSWORD_FILE).read_text(encoding="utf-8"))


def wallet_settings(key: SharedKey) -> dict[str, str]:
    """The `[wallet]` section of the agent's settings."""
    return {"kind": "mpc", "address": key.address, "home": str(key.home.resolve()), "password": key.password}


def _give_primes(home: Any, text: str) -> None:
    from agent.keys.threshold import engine

    try:
        home.keep_primes(engine.Primes.from_bytes(bytearray.fromhex(text)) if text else engine.Primes.generate())
    except (ValueError, engine.ThresholdError):
        raise SecretError("these are no primes of a party; leave them out, and they are made") from None


def _free_ports(count: int) -> list[int]:
    """Different ones, as all are held until the last is found."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(one.getsockname()[1]) for one in held]
    for one in held:
        one.close()
    return ports


def _write_private(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
