"""How the signer suite reaches a key of kind `process`: a real `isthmus signer`."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from key_case import KEY_HEX, ROUTER, TOKEN, Far
from signer_process import PASSWORD, SignerProcess

from agent.keys.custody import process


@contextlib.contextmanager
def open_case(folder: Path) -> Iterator[Far]:
    signer = SignerProcess(folder, KEY_HEX, ROUTER, TOKEN, "0x" + "b2" * 20)
    signer.start()
    settings = {"kind": "process", "address": signer.address, "socket": "run/signer.sock"}
    try:
        yield Far(process, folder, signer.address, settings, (KEY_HEX, PASSWORD), signer.kill, lambda: signer.start() and None)
    finally:
        signer.stop()
