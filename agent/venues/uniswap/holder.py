"""Who holds the tokens: the wallet itself, or an account that its key acts for. Looked at once, before anything is traded."""

from typing import Any

from agent.chains import abi
from agent.chains.multicall import Read, read_all
from agent.chains.roles_log import Granted, fetch_granted
from agent.chains.rpc import Node, octets, whole
from agent.chains.witness import connect as connect_rpc
from agent.domain.errors import ChainError
from agent.ports import Tools
from agent.venues.uniswap.config import Config

SAFE_VERSION = "1.4.1"
DELEGATED = b"\xef\x01\x00"  # EIP-7702: an account's code is this and whose code it runs


async def check_holder(rpc: Node, config: Config) -> None:
    """Raises ChainError when the account of the config is none, is of another kind, or would not obey the wallet's key."""
    match config.account:
        case "safe":
            await _check_safe(rpc, config)
        case "role":
            await _check_safe(rpc, config)
            await _check_modifier(rpc, config)
        case "erc4337":
            await _check_smart_account(rpc, config)
        case "eip7702":
            await _check_delegate(rpc, config)
        case "eoa":
            pass


async def fetch_role(config: Config, tools: Tools) -> tuple[bool, Granted]:
    """Whether the modifier may act as the Safe, and what it lets whom do. Raises ChainError."""
    rpc = await connect_rpc(
        config.rpc_url, config.rpc_url_second, config.chain_id, config.timeout_s, tools.clock, config.lag_blocks_max
    )
    try:
        asked = (abi.call_data("isModuleEnabled(address)", config.modifier),)
        (is_enabled,) = await _ask(rpc, config, f"the Safe {config.safe}", config.safe, asked, ("bool",))
        return is_enabled, await fetch_granted(rpc, config.modifier, config.role_since)
    finally:
        await rpc.close()


async def _check_safe(rpc: Node, config: Config) -> None:
    """Whoever has a role must not be an owner as well: a role binds nobody who can do without it."""
    what, safe = f"the Safe {config.safe}", config.safe
    calls = (abi.selector("VERSION()"), abi.selector("getThreshold()"), abi.call_data("isOwner(address)", config.wallet))
    version, threshold, is_owner = await _ask(rpc, config, what, safe, calls, ("string", "uint256", "bool"))
    if version != SAFE_VERSION:
        raise ChainError(f"{what} is of version {version[:16]!r}; this agent knows {SAFE_VERSION}")
    if config.account == "role" and is_owner:
        raise ChainError(f"the wallet {config.wallet} is an owner of {what}, so its role binds it to nothing; remove it there")
    if config.account == "role":
        return
    if not is_owner:
        raise ChainError(f"the wallet {config.wallet} is no owner of {what}: add it there, or name another Safe")
    if threshold != 1:
        raise ChainError(f"{what} wants {threshold} owners to agree; trading needs one whose word is enough")


async def _check_modifier(rpc: Node, config: Config) -> None:
    """What passes the modifier happens as this Safe, and nobody but the Safe changes its rules; the rules are `agent.roles`'s."""
    what, modifier = f"the Roles modifier {config.modifier}", config.modifier
    calls = tuple(abi.selector(f"{name}()") for name in ("avatar", "target", "owner"))
    for name, found in zip(
        ("avatar", "target", "owner"), await _ask(rpc, config, what, modifier, calls, ("address",) * 3), strict=True
    ):
        if found.lower() != config.safe.lower():
            raise ChainError(f"the {name} of {what} is {found}, not the Safe {config.safe}; its rules bind nobody then")


async def _check_smart_account(rpc: Node, config: Config) -> None:
    """The key pays for gas, so it needs no deposit; it must exist, know its EntryPoint, and obey the key alone."""
    what, account = f"the account {config.smart_account}", config.smart_account
    if not octets(await rpc.call("eth_getCode", account, "latest")):
        raise ChainError(
            f"there is no contract at {account} on chain {rpc.chain_id}: create the account first, or correct smart_account"
        )
    calls = (abi.selector("owner()"), abi.selector("entryPoint()"))
    owner, entry_point = await _ask(rpc, config, what, account, calls, ("address", "address"))
    if owner.lower() != config.wallet.lower():
        raise ChainError(f"the owner of {what} is {owner}, not the wallet {config.wallet}: name another account")
    if entry_point.lower() != config.contracts.entry_point.lower():
        raise ChainError(f"{what} belongs to the EntryPoint {entry_point}, not {config.contracts.entry_point}: correct contracts")


async def _check_delegate(rpc: Node, config: Config) -> None:
    code = octets(await rpc.call("eth_getCode", config.wallet, "latest"))
    if code != DELEGATED + bytes.fromhex(config.delegate[2:]):
        runs = f"runs {'0x' + code[3:].hex()}" if code.startswith(DELEGATED) else "runs no code"
        raise ChainError(f"the wallet {config.wallet} {runs}, not {config.delegate}; let it: isthmus keys delegate")


async def _ask(rpc: Node, config: Config, what: str, to: str, calls: tuple[bytes, ...], kinds: tuple[str, ...]) -> tuple[Any, ...]:
    """One answer for each call, at the newest block. Raises ChainError where there is no such contract."""
    block = whole(await rpc.call("eth_blockNumber"))
    answers = await read_all(rpc, config.contracts.multicall3, [Read(to, one, what) for one in calls], block)
    return tuple(abi.decoded([kind], answer, what)[0] for kind, answer in zip(kinds, answers, strict=True))
