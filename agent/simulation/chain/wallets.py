"""Accounts on the sandbox chain: the Safe's contracts as published, and a Safe of one's own.

Raises RpcError when the chain refuses, ArtifactError when a contract cannot be had.
"""

import msgspec
from eth_abi.abi import decode
from eth_utils.address import to_checksum_address

from agent.keys.accounts.safe import CREATE_PROXY, setup_data
from agent.simulation.chain.artifacts import third_party
from agent.simulation.chain.rpc import Sender

_CREATE_GAS = 500_000


class SafeContracts(msgspec.Struct, frozen=True):
    """What every Safe of a chain shares: its code, the factory, the one batch contract, and what answers for EIP-1271."""

    singleton: str
    factory: str
    multi_send: str
    fallback_handler: str


def deploy_safe_contracts(sender: Sender) -> SafeContracts:
    """Safe 1.4.1 in four transactions."""
    names = ("Safe", "SafeProxyFactory", "MultiSendCallOnly", "SafeFallbackHandler")
    found = SafeContracts(*(sender.deploy(third_party(name)) for name in names))
    sender.settle()
    return found


def new_safe(sender: Sender, contracts: SafeContracts, owners: list[str], threshold: int = 1, salt: int = 0) -> str:
    """A Safe of these owners; returns its address, with checksum."""
    data = CREATE_PROXY.data(contracts.singleton, setup_data(owners, threshold, contracts.fallback_handler), salt)
    call = {"from": sender.address, "to": contracts.factory, "data": "0x" + data.hex()}
    (address,) = decode(["address"], bytes.fromhex(sender.rpc.call("eth_call", call, "latest")[2:]))
    sender.send(contracts.factory, "0x" + data.hex(), gas=_CREATE_GAS)
    sender.settle()
    return str(to_checksum_address(address))
