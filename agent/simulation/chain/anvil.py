"""Anvil, the node that the sandbox prefers: real EVM, mempool, logs and WebSocket; it starts in well under 0.1 s."""

from pathlib import Path

from agent.simulation.chain.artifacts import anvil
from agent.simulation.chain.child import Child
from agent.simulation.chain.rpc import DEV_MNEMONIC, Rpc

CHAIN_ID = 31337
GENESIS_S = 1_700_000_000
BALANCE_ETH = 10_000_000


def start_anvil(
    *,
    load: Path | None = None,
    dump: Path | None = None,
    block_time_s: float | None = None,
    chain_id: int = CHAIN_ID,
    timestamp_s: int | None = None,
    log_path: Path | None = None,
    extra: tuple[str, ...] = (),
) -> Child:
    """Start Anvil on a free loopback port.

    `load` and `dump` are state files: read at the start, written at the stop. `block_time_s` None mines a block for each
    transaction. Raises ArtifactError when there is no Anvil program, ChildError when it does not start.
    """
    command = [str(anvil()), "--host", "127.0.0.1", "--port", "0", "--chain-id", str(chain_id)]
    command += ["--mnemonic", DEV_MNEMONIC, "--balance", str(BALANCE_ETH), "--no-request-size-limit", "--order", "fifo"]
    command += ["--load-state", str(load)] if load else []
    command += ["--dump-state", str(dump)] if dump else []
    command += ["--block-time", str(block_time_s)] if block_time_s else []
    command += ["--timestamp", str(timestamp_s)] if timestamp_s else []
    child = Child([*command, *extra], log_path=log_path)
    rpc = Rpc(child.url)
    try:
        rpc.call("eth_chainId")
    finally:
        rpc.close()
    return child
