"""A real `isthmus signer` for tests: its own process, its own settings, a key from a keystore of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from cli_kit import environment

from agent.keys.keystore import Keystore
from agent.keys.secrets import Secret

PASSWORD = "a word that only the signer hears"
SETTINGS = """
[wallet]
kind = "process"
address = "{owner}"
socket = "run/signer.sock"
[venues.chain]
kind = "uniswap"
rpc_url = "http://127.0.0.1:1"
chain_id = 31337
wallet = "{owner}"
contracts = {{ universal_router = "{router}" }}
tokens = [
  {{ symbol = "WETH", address = "{weth}", decimals = 18, group = "ETH" }},
  {{ symbol = "USDT", address = "{usdt}", decimals = 6 }},
]
pools = [{{ protocol = "v3", base = "WETH", quote = "USDT", fee_pips = 500, address = "0x{pool}" }}]
"""


class SignerProcess:
    """`more` ends its settings. `start` returns when it answers; what it says is kept, to be looked through."""

    def __init__(self, folder: Path, key_hex: str, router: str, weth: str, usdt: str, more: str = "") -> None:
        self.folder, self.said = folder, ""
        self.address = Keystore(folder / ".isthmus" / "keystore", 2**12).import_key("main", Secret(key_hex), Secret(PASSWORD))
        text = SETTINGS.format(owner=self.address, router=router, weth=weth, usdt=usdt, pool="33" * 20)
        (folder / "isthmus.toml").write_text(text + more)
        self.socket = folder / "run" / "signer.sock"
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> dict[str, Any]:
        """What it says about itself. Its password comes through a pipe."""
        read_end, write_end = os.pipe()
        os.write(write_end, PASSWORD.encode())
        os.close(write_end)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "agent", "signer", "--password-fd", str(read_end), "--json"],
            cwd=self.folder,
            env=environment(),
            pass_fds=(read_end,),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        os.close(read_end)
        assert self._process.stdout is not None
        lines = []
        while line := self._process.stdout.readline():
            lines.append(line)
            if line == "}\n":
                break
        self.said += "".join(lines)
        if not lines or lines[-1] != "}\n":
            self._end()
            raise AssertionError(f"the signer did not start: {self.said}")
        told: dict[str, Any] = json.loads("".join(lines))
        return told

    def kill(self) -> None:
        """At once, as a machine that loses its power; the socket stays behind."""
        assert self._process is not None
        self._process.kill()
        self._end()

    def stop(self) -> int:
        """In order; its exit code."""
        if self._process is None:
            return 0
        self._process.terminate()
        return self._end()

    def _end(self) -> int:
        assert self._process is not None
        out, _ = self._process.communicate(timeout=20)
        self.said += out or ""
        code, self._process = self._process.returncode, None
        return code
