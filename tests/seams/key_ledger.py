"""How the signer suite reaches a key of kind `ledger`: a model of the device, written from its published protocol."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from key_case import Far
from ledger_device import Ledger

from agent.keys.custody import ledger
from agent.simulation.chain.rpc import DEV_MNEMONIC


@contextlib.contextmanager
def open_case(folder: Path) -> Iterator[Far]:
    device = Ledger(DEV_MNEMONIC)
    account = device.account()
    settings = {"kind": "ledger", "address": account.address, "transport": f"tcp://127.0.0.1:{device.port}"}
    try:
        yield Far(ledger, folder, account.address, settings, (account.key.hex(),), device.stop, device.start)
    finally:
        device.stop()
