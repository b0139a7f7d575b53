"""The sandbox as pytest fixtures, for users' own strategies: installed with the package, loaded by pytest by itself.

`sandbox_chain` and `sandbox_exchange` start in well under a second and are new for every test; `sandbox_eth_tester` is eth-tester's
own API over Anvil. They need `pytest-asyncio`. Parametrise `sandbox_chain` with `@pytest.mark.sandbox_chain("eth-tester")`.
"""

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # loaded with every pytest run, so nothing heavy is imported before a fixture is asked for
    from eth_tester import EthereumTester

    from agent.simulation.chain.world import SandboxChain
    from agent.simulation.exchange.sandbox import Exchange

try:
    from pytest_asyncio import fixture as async_fixture
except ImportError:  # a user's environment without it must still start; only these fixtures are missing there
    async_fixture = pytest.fixture  # type: ignore[assignment]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "sandbox_chain(kind): which chain `sandbox_chain` starts, anvil or eth-tester")


@async_fixture
async def sandbox_chain(request: pytest.FixtureRequest) -> "AsyncIterator[SandboxChain]":
    """A chain with Uniswap v2, v3, v4, Permit2 and the UniversalRouter, mining each transaction at once."""
    from agent.simulation.chain.world import start_chain

    mark = request.node.get_closest_marker("sandbox_chain")
    chain = await start_chain(mark.args[0] if mark else "anvil")
    try:
        yield chain
    finally:
        await chain.stop()


@async_fixture
async def sandbox_exchange() -> "AsyncIterator[Exchange]":
    """An exchange that speaks Binance's spot wire, with an empty book: deposit, make a key, trade."""
    from agent.simulation.exchange.sandbox import ExchangeConfig, start_exchange

    exchange = await start_exchange(ExchangeConfig(flow="none"))
    try:
        yield exchange
    finally:
        await exchange.stop()


@pytest.fixture
def sandbox_eth_tester() -> "Iterator[EthereumTester]":
    """eth-tester's fixture API with Anvil underneath."""
    from eth_tester import EthereumTester

    from agent.simulation.chain.backend import AnvilBackend

    backend = AnvilBackend()
    try:
        yield EthereumTester(backend)
    finally:
        backend.close()
