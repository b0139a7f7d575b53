"""A real group of a shared key for tests: three parties, two of them daemons; made once, half a minute, and started again as often.

Where the threshold engine is not built, tests that ask for it say so and do not run; with ISTHMUS_REQUIRE_MPC=1 they fail instead.
The primes are public and only save time: a key made with them is nobody's secret.
"""

import asyncio
import atexit
import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.domain.errors import SignerError
from agent.simulation.cosigners import NAMES, CosignerGroup, SharedKey

PRIMES = Path(__file__).with_name("threshold") / "primes.hex"
ROUTER, TOKEN, OTHER_TOKEN = "0x" + "a1" * 20, "0x" + "b1" * 20, "0x" + "b2" * 20
SETTINGS = """
home = "state"
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

_made: list[tuple[CosignerGroup, SharedKey]] = []
_users: list[CosignerGroup] = []  # two fixtures may have it open at once


def settings(owner: str) -> str:
    return SETTINGS.format(owner=owner, router=ROUTER, weth=TOKEN, usdt=OTHER_TOKEN, pool="33" * 20)


def need_engine() -> None:
    """Or a skip."""
    try:
        import agent.keys.threshold.engine  # noqa: F401
    except SignerError as error:
        if os.environ.get("ISTHMUS_REQUIRE_MPC") == "1":
            raise
        pytest.skip(str(error))


@contextlib.contextmanager
def open_group() -> Iterator[tuple[CosignerGroup, SharedKey]]:
    """With both daemons up. The same key each time in one process of pytest."""
    need_engine()
    if not _made:
        place = Path(tempfile.mkdtemp(prefix="isthmus-parties-"))  # one for all tests that ask
        atexit.register(shutil.rmtree, place, ignore_errors=True)
        group = CosignerGroup(place)
        try:
            key = asyncio.run(group.make(PRIMES.read_text(encoding="ascii").split()))
            asyncio.run(group.serve(settings(key.address)))
        except BaseException:
            group.close()
            raise
        _made.append((group, key))
    group, key = _made[0]
    for name in NAMES[1:]:
        if not group.is_running(name):
            group.start(name)
    _users.append(group)
    try:
        yield group, key
    finally:
        _users.pop()
        if not _users:
            group.close()
