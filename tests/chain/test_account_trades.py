"""Trading through every kind of account: the same orders on the engine's own path, and every wei explained."""

import secrets
from collections.abc import AsyncIterator

import pytest
from pilot import MAIN, Pilot, flying, rules

from agent.domain.amount import group_asset, parse_amount
from agent.domain.events import GasPaid
from agent.domain.intent import Intent
from agent.domain.plan import SwapBatch
from agent.keys.local import LocalSigner
from agent.routing.cost import BATCH_GAS
from agent.simulation.chain.world import start_chain
from agent.simulation.world import AccountKind
from agent.venues.uniswap.config import ACCOUNT_GAS, ACCOUNT_LEG_GAS, LEG_GAS

pytestmark = [pytest.mark.chain, pytest.mark.timeout(120)]
GAS_LIMIT_MAX = 10_000_000
KINDS: tuple[AccountKind, ...] = ("erc4337", "role")


@pytest.fixture(params=KINDS)
async def pilot(request: pytest.FixtureRequest) -> AsyncIterator[Pilot]:
    async with await start_chain("anvil") as chain:
        key = secrets.token_bytes(32)
        made = await chain.account_of(request.param, LocalSigner(bytearray(key)).address)
        chosen = rules(gas_base=BATCH_GAS + ACCOUNT_GAS[request.param], gas_limit_max=GAS_LIMIT_MAX)
        async with flying(chain, key=key, made=made, with_rules=chosen, gas_limit_max=GAS_LIMIT_MAX) as found:
            yield found


async def test_it_sells_and_buys_and_gas_is_what_is_reckoned_with(pilot: Pilot) -> None:
    await pilot.traded(await pilot.sell("1"))
    deadline_ns = pilot.engine.now_ns() + 120 * 10**9
    amount = parse_amount("1", group_asset("ETH"))
    for name in ("b1", "b2"):
        assert await pilot.engine.submit(Intent(name, MAIN, name, "buy", amount, "USDT", 300, deadline_ns)) == ()
        await pilot.traded(name)
    await pilot.traded(await pilot.sell("30"))
    await pilot.agrees()
    for event in [event for event in pilot.journal() if isinstance(event, GasPaid)]:
        plan = pilot.engine.state.orders[event.order_id].plan
        assert isinstance(plan, SwapBatch)
        kind = pilot.config.account
        legs = [leg.instrument.partition(":")[2].partition("-")[0] for leg in plan.legs]
        reckoned = BATCH_GAS + ACCOUNT_GAS[kind] + sum(LEG_GAS[leg] + ACCOUNT_LEG_GAS.get(kind, 0) for leg in legs)
        assert reckoned * 80 // 100 < event.gas_used < reckoned * 115 // 100, (kind, event.gas_used, reckoned, len(legs))
        assert event.gas_used < plan.gas_limit * 6 // 10
