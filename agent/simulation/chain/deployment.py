"""The sandbox's address book: which token, contract and pool lives where on a chain."""

from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from agent.simulation.chain.artifacts import data_dir

Protocol = Literal["v2", "v3", "v4"]
ZERO_ADDRESS = "0x" + "00" * 20


class Token(NamedTuple):
    """A token contract and the decimals of its unit."""

    address: str
    decimals: int


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """A Uniswap pool. v2 and v3 pools have an `address`; v4 pools have a `pool_id` and, perhaps, `hooks`.

    `fee_pips` is in millionths; `tick_spacing` is 0 for v2. `currency0` sorts before `currency1`, as in the contracts.
    """

    name: str
    protocol: Protocol
    fee_pips: int
    tick_spacing: int
    currency0: str
    currency1: str
    address: str = ""
    pool_id: str = ""
    hooks: str = ZERO_ADDRESS


class Deployment(msgspec.Struct, frozen=True):
    """All addresses of one chain; checksummed."""

    chain_id: int
    tokens: dict[str, Token]
    contracts: dict[str, str]
    pools: tuple[Pool, ...]

    def pool(self, name: str) -> Pool:
        """A pool by name, for example "v3-500". Raises KeyError with the names that exist."""
        found = next((pool for pool in self.pools if pool.name == name), None)
        if found is None:
            raise KeyError(f"no pool {name}; there are {', '.join(pool.name for pool in self.pools)}")
        return found


def load_deployment(chain_id: int) -> Deployment:
    """Read `deployments/<chain_id>.json`."""
    return msgspec.json.decode((data_dir("deployments") / f"{chain_id}.json").read_bytes(), type=Deployment)


def save_deployment(deployment: Deployment, path: Path) -> None:
    """Write an address book as `deployments/<chain_id>.json` holds it."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(deployment), indent=2) + b"\n")
