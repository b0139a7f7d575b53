"""Who holds the tokens: the wallet itself, or a Safe that the wallet's key acts for. Looked at once, before anything is traded."""

from agent.chains import abi
from agent.chains.multicall import Read, read_all
from agent.chains.rpc import Node, whole
from agent.domain.errors import ChainError
from agent.venues.uniswap.config import Config

SAFE_VERSION = "1.4.1"


async def check_holder(rpc: Node, config: Config) -> None:
    """Raises ChainError when the Safe of the config is none, is of another version, or would not obey the wallet's key alone."""
    if config.account != "safe":
        return
    what, safe = f"the Safe {config.safe}", config.safe
    calls = (abi.selector("VERSION()"), abi.selector("getThreshold()"), abi.call_data("isOwner(address)", config.wallet))
    block = whole(await rpc.call("eth_blockNumber"))
    answers = await read_all(rpc, config.contracts.multicall3, [Read(safe, one, what) for one in calls], block)
    (version,), (threshold,), (is_owner,) = (
        abi.decoded([kind], answer, what) for kind, answer in zip(("string", "uint256", "bool"), answers, strict=True)
    )
    if version != SAFE_VERSION:
        raise ChainError(f"{what} is of version {version[:16]!r}; this agent knows {SAFE_VERSION}")
    if not is_owner:
        raise ChainError(f"the wallet {config.wallet} is no owner of {what}: add it there, or name another Safe")
    if threshold != 1:
        raise ChainError(f"{what} wants {threshold} owners to agree; trading needs one whose word is enough")
