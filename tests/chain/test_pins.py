"""Pinned code: while it is what was pinned the venue trades, and as soon as it is not nothing new is sent there."""

from collections.abc import AsyncIterator

import msgspec
import pytest
from aiohttp import ClientSession
from eth_utils.crypto import keccak
from onchain_desk import Desk, Feed, RealClock, open_desk

from agent.chains.rpc import connect as connect_rpc
from agent.domain.errors import ChainError, ConfigError
from agent.domain.events import VenueStatus
from agent.ports import Tools
from agent.simulation.chain.world import start_chain
from agent.venues.uniswap import Config, connect, pins_of
from agent.venues.uniswap.pins import IMPLEMENTATION, LOOK_EVERY_BLOCKS, Pins, checked, code_hashes

pytestmark = pytest.mark.chain
OTHER = "0x" + "ab" * 20


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with await start_chain("anvil") as running, open_desk(running) as opened:
        yield opened


async def ask(desk: Desk, method: str, *params: object) -> object:
    """Of the node itself: what only its owner may do."""
    async with (
        ClientSession() as http,
        http.post(desk.chain.rpc_url, json={"jsonrpc": "2.0", "id": 1, "method": method, "params": params}) as answer,
    ):
        found = await answer.json()
    assert "error" not in found, found
    return found["result"]


async def test_the_hashes_are_those_of_the_code_that_is_there(desk: Desk) -> None:
    pins = await pins_of(desk.config, Tools(RealClock()))
    assert list(pins) == list(desk.config.touched)
    for address, code_hash in pins.items():
        code = await ask(desk, "eth_getCode", address, "latest")
        assert code_hash == "0x" + keccak(hexstr=str(code)).hex()


async def test_a_router_that_was_replaced_gets_no_new_orders_until_it_is_back(desk: Desk) -> None:
    pins = await pins_of(desk.config, Tools(RealClock()))
    config = Config.model_validate({**desk.config.model_dump(), "code_hashes": pins})
    router = config.contracts.universal_router
    code = await ask(desk, "eth_getCode", router, "latest")
    venue = await connect("uniswap", config, Tools(RealClock()))
    feed = Feed(venue)

    async def told(status: str) -> VenueStatus:
        await ask(desk, "anvil_mine", hex(2 * LOOK_EVERY_BLOCKS))

        def newest(events: list[object]) -> VenueStatus | None:
            found = [event for event in events if isinstance(event, VenueStatus)]
            return found[-1] if found and found[-1].status == status else None

        return await feed.until(newest)

    try:
        await feed.until(lambda events: True if len(events) > 3 else None)
        assert not any(isinstance(event, VenueStatus) for event in feed.events)
        await ask(desk, "anvil_setCode", router, "0x60006000fd")
        stopped = await told("CANCEL_ONLY")
        assert f"the code at {router} is not the one that is pinned" in stopped.reason
        await ask(desk, "anvil_setCode", router, code)
        assert (await told("TRADING")).reason == ""
    finally:
        await feed.close()
        await venue.close()


async def test_a_proxy_is_pinned_together_with_what_it_leads_to(desk: Desk) -> None:
    rpc = await connect_rpc(desk.chain.rpc_url, desk.config.chain_id)
    try:
        proxy, first, second = (desk.config.contracts.permit2, desk.config.tokens[0].address, desk.config.tokens[1].address)
        await ask(desk, "anvil_setStorageAt", proxy, IMPLEMENTATION, "0x" + "00" * 12 + first[2:])
        await ask(desk, "anvil_mine", "0x1")
        number = int(str(await ask(desk, "eth_blockNumber")), 16)
        pins = await code_hashes(rpc, [proxy], number)
        assert list(pins) == [proxy, first], "what it leads to is pinned with it"
        watch = Pins(rpc, pins)
        await watch.look(number)
        assert watch.trouble == ""
        await ask(desk, "anvil_setStorageAt", proxy, IMPLEMENTATION, "0x" + "00" * 12 + second[2:])
        await ask(desk, "anvil_mine", "0x1")
        await watch.look(number + 1)
        assert watch.trouble == "", "it is looked at every few blocks"
        await ask(desk, "anvil_mine", hex(LOOK_EVERY_BLOCKS))
        await watch.look(number + LOOK_EVERY_BLOCKS)
        assert f"leads to {second}, which is not pinned" in watch.trouble
        alone = Pins(rpc, {proxy: pins[proxy]})
        await alone.look(number + 1)
        assert "is not pinned" in alone.trouble
    finally:
        await rpc.close()


async def test_where_nothing_lies_nothing_is_pinned(desk: Desk) -> None:
    config = desk.config.model_copy(update={"contracts": desk.config.contracts.model_copy(update={"universal_router": OTHER})})
    with pytest.raises(ChainError, match="no contract at"):
        await pins_of(config, Tools(RealClock()))


@pytest.mark.parametrize("pins", [{"x": "0x" + "00" * 32}, {OTHER: "0x12"}, {OTHER: "zz" * 32}, {OTHER: ""}])
def test_a_pin_that_is_none_is_refused(pins: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="code_hashes"):
        checked(pins)


def test_a_pin_may_be_written_in_any_case() -> None:
    code_hash = "AB" * 32
    assert checked({OTHER: code_hash}) == checked({OTHER.upper().replace("0X", "0x"): "0x" + code_hash.lower()})
    assert msgspec.json.encode(checked({}))
