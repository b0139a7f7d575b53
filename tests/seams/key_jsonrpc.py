"""How the signer suite reaches a key of kind `jsonrpc`: Anvil, which holds accounts and signs what it is given."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from eth_account import Account
from key_case import CHAIN, Far

from agent.keys.custody import jsonrpc
from agent.simulation.chain.artifacts import anvil
from agent.simulation.chain.child import Child
from agent.simulation.chain.rpc import DEV_MNEMONIC

Account.enable_unaudited_hdwallet_features()


@contextlib.contextmanager
def open_case(folder: Path) -> Iterator[Far]:
    account = Account.from_mnemonic(DEV_MNEMONIC)
    running = [start(0)]
    port = running[0].port
    settings = {"kind": "jsonrpc", "address": account.address, "url": f"http://127.0.0.1:{port}"}
    try:
        yield Far(
            jsonrpc,
            folder,
            account.address,
            settings,
            (account.key.hex(),),
            lambda: running.pop().stop(),
            lambda: running.append(start(port)),
        )
    finally:
        for child in running:
            child.stop()


def start(port: int) -> Child:
    return Child([str(anvil()), "--host", "127.0.0.1", "--port", str(port), "--chain-id", str(CHAIN), "--mnemonic", DEV_MNEMONIC])
