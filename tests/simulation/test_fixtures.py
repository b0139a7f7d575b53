"""The fixtures that users get with the package: each starts the real thing, new for every test."""

import aiohttp
import pytest
from eth_tester import EthereumTester

from agent.simulation.chain.rpc import Rpc
from agent.simulation.chain.world import SandboxChain
from agent.simulation.exchange.sandbox import Exchange

pytestmark = pytest.mark.chain


def test_the_chain_is_there_with_its_pools(sandbox_chain: SandboxChain) -> None:
    rpc = Rpc(sandbox_chain.rpc_url)
    try:
        assert int(rpc.call("eth_chainId"), 16) == sandbox_chain.chain_id == 31_337
        assert len(rpc.call("eth_getCode", sandbox_chain.deployment.pool("v3-500").address, "latest")) > 1_000
    finally:
        rpc.close()


@pytest.mark.sandbox_chain("eth-tester")
def test_a_mark_chooses_the_chain_inside_python(sandbox_chain: SandboxChain) -> None:
    assert sandbox_chain.kind == "eth-tester"
    assert sandbox_chain.ws_url is None


async def test_the_exchange_answers_with_an_empty_book(sandbox_exchange: Exchange) -> None:
    async with aiohttp.ClientSession() as http, http.get(f"{sandbox_exchange.url}/api/v3/depth?symbol=ETHUSDT") as reply:
        book = await reply.json()
    assert book["bids"] == book["asks"] == []


def test_eth_testers_own_interface_drives_anvil(sandbox_eth_tester: EthereumTester) -> None:
    before = sandbox_eth_tester.get_block_by_number("latest")["number"]
    sandbox_eth_tester.mine_blocks(3)
    assert sandbox_eth_tester.get_block_by_number("latest")["number"] == before + 3
