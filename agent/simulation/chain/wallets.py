"""Accounts on the sandbox chain: the contracts of Safe, Zodiac Roles v2 and ERC-4337 as published, and accounts of one's own.

Raises RpcError when the chain refuses, ArtifactError when a contract cannot be had.
"""

from collections.abc import Sequence

import msgspec
from eth_abi.abi import decode, encode
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from agent.domain.plan import Call
from agent.keys.accounts.owners import Consent, packed
from agent.keys.accounts.safe import CREATE_PROXY, exec_data, setup_data, wrap
from agent.simulation.chain.artifacts import ROLES_LOCK_PATH, bundle, third_party
from agent.simulation.chain.rpc import Rpc, Sender, created_address, dev_account, wait_for_receipt
from agent.simulation.world import AccountKind

COLD = 3  # the account of the development mnemonic that owns the Safe behind a role; no agent holds its key
ROLE = "agent"
_CREATE_GAS, _OWNERS_GAS, _ROLES_GAS = 500_000, 15_000_000, 10_000_000
_FACTORY, _FACTORY_FUNDER = "0xce0042B868300000d44A59004Da54A005ffdcf9f", "0xBb6e024b9cFFACB947A71991E386681B1Cd1477D"  # ERC-2470
_LIBRARIES = {"Integrity": "contracts/Integrity.sol:Integrity", "Packer": "contracts/packers/Packer.sol:Packer"}
_ETH = 10**18


class SafeContracts(msgspec.Struct, frozen=True):
    """What every Safe of a chain shares: its code, the factory, the one batch contract, and what answers for EIP-1271."""

    singleton: str
    factory: str
    multi_send: str
    fallback_handler: str


class Made(msgspec.Struct, frozen=True):
    """A new account. `settings` and `contracts` are what a venue's section says about it; `holder` gets the tokens."""

    holder: str
    settings: dict[str, str] = {}
    contracts: dict[str, str] = {}


def deploy_safe_contracts(sender: Sender) -> SafeContracts:
    """Safe 1.4.1 in four transactions."""
    names = ("Safe", "SafeProxyFactory", "MultiSendCallOnly", "SafeFallbackHandler")
    found = SafeContracts(*(sender.deploy(third_party(name)) for name in names))
    sender.settle(together=True)
    return found


def new_safe(sender: Sender, contracts: SafeContracts, owners: list[str], threshold: int = 1, salt: int = 0) -> str:
    """A Safe of these owners; returns its address, with checksum."""
    data = CREATE_PROXY.data(contracts.singleton, setup_data(owners, threshold, contracts.fallback_handler), salt)
    call = {"from": sender.address, "to": contracts.factory, "data": "0x" + data.hex()}
    (address,) = decode(["address"], bytes.fromhex(sender.rpc.call("eth_call", call, "latest")[2:]))
    sender.send(contracts.factory, "0x" + data.hex(), gas=_CREATE_GAS)
    sender.settle()
    return str(to_checksum_address(address))


def new_account(sender: Sender, kind: AccountKind, key: str) -> Made:
    """An account that `key` acts for. A role is not set up yet: the owner of its Safe (`COLD`) does that, see `as_owner`."""
    match kind:
        case "eoa":
            return Made(key)
        case "safe":
            shared = deploy_safe_contracts(sender)
            safe = new_safe(sender, shared, [key])
            return Made(safe, {"account": kind, "safe": safe}, {"multi_send": shared.multi_send})
        case "role":
            return _new_role(sender)
        case "erc4337":
            return _new_smart_account(sender, key)
        case "erc4337-0.7":
            return _old_smart_account(sender, key)
        case "eip7702":
            delegate = sender.deploy(third_party("Simple7702Account"))
            sender.settle()
            return Made(key, {"account": kind, "delegate": delegate})


def as_owner(rpc: Rpc, safe: str, multi_send: str, calls: Sequence[Call]) -> None:
    """What the owner of the sandbox's Safe behind a role decides, in one transaction."""
    owner = Sender(rpc, dev_account(COLD))
    data = exec_data(wrap(calls, multi_send), packed((Consent(owner.address, "approved"),)))
    owner.send(to_checksum_address(safe), "0x" + data.hex(), gas=_OWNERS_GAS)
    owner.settle()


def deploy_roles(sender: Sender, owner: str) -> tuple[str, str]:
    """A modifier of `owner` over `owner`, and the contract with which it reads batches."""
    code = bundle(ROLES_LOCK_PATH).literals
    if sender.rpc.call("eth_getCode", _FACTORY, "latest") == "0x":
        sender.send(_FACTORY_FUNDER, "0x", gas=21_000, value=_ETH // 10)
        sender.settle()
        wait_for_receipt(sender.rpc, sender.rpc.call("eth_sendRawTransaction", code["SingletonFactory"]))
    linked = code["Roles"]
    for name, path in _LIBRARIES.items():
        place = f"__${keccak(text=path).hex()[:34]}$__"  # solc: where a library's address belongs
        linked = linked.replace(place, _create(sender, code[name])[2:].lower())
    modifier = _create(sender, linked + encode(["address"] * 3, [owner] * 3).hex())  # owner, avatar, target
    unwrapper = _create(sender, code["MultiSendUnwrapper"])
    sender.settle(together=True)
    return modifier, unwrapper


def _new_role(sender: Sender) -> Made:
    shared = deploy_safe_contracts(sender)
    safe = new_safe(sender, shared, [dev_account(COLD).address])
    modifier, unwrapper = deploy_roles(sender, safe)
    settings = {"account": "role", "safe": safe, "modifier": modifier, "role": ROLE}
    return Made(safe, settings, {"multi_send": shared.multi_send, "multi_send_unwrapper": unwrapper})


def _new_smart_account(sender: Sender, key: str) -> Made:
    """Only the EntryPoint's own creator may ask the factory for an account: Anvil lets anybody send in its name."""
    rpc = sender.rpc
    entry = sender.deploy(third_party("EntryPoint08"))
    factory = sender.deploy(third_party("SimpleAccountFactory08"), entry)
    sender.settle(together=True)
    (creator,) = decode(["address"], rpc.read(entry, "senderCreator()"))
    (account,) = decode(["address"], rpc.read(factory, "getAddress(address,uint256)", key, 0))
    rpc.call("anvil_setBalance", creator, hex(_ETH))
    rpc.call("anvil_impersonateAccount", creator)
    data = "0x" + keccak(text="createAccount(address,uint256)")[:4].hex() + encode(["address", "uint256"], [key, 0]).hex()
    call = {"from": creator, "to": factory, "data": data, "gas": hex(_CREATE_GAS)}
    wait_for_receipt(rpc, rpc.call("eth_sendTransaction", call))
    rpc.call("anvil_stopImpersonatingAccount", creator)
    account = str(to_checksum_address(account))
    return Made(account, {"account": "erc4337", "smart_account": account}, {"entry_point": entry})


def _old_smart_account(sender: Sender, key: str) -> Made:
    """Of EntryPoint 0.7, whose factory makes one for everybody."""
    entry = sender.deploy(third_party("EntryPoint07"))
    factory = sender.deploy(third_party("SimpleAccountFactory07"), entry)
    sender.settle(together=True)
    (account,) = decode(["address"], sender.rpc.read(factory, "getAddress(address,uint256)", key, 0))
    data = "0x" + keccak(text="createAccount(address,uint256)")[:4].hex() + encode(["address", "uint256"], [key, 0]).hex()
    sender.send(factory, data, gas=_CREATE_GAS)
    sender.settle()
    account = str(to_checksum_address(account))
    settings = {"account": "erc4337", "smart_account": account, "entry_point_version": "0.7"}
    return Made(account, settings, {"entry_point": entry})


def _create(sender: Sender, code: str) -> str:
    address = created_address(sender.address, sender.nonce)
    sender.send(None, code, gas=_ROLES_GAS)
    return address
