"""Somebody has taken the code over that builds requests. The key refuses each of his tries, and the journal says why.

The whole engine runs; only what a chain venue asks its key to sign is the attacker's. Attacks on what lies between the agent and a
far key, on code that was replaced, on rehearsals and on ceremonies are in test_key_process, test_pins, test_rehearsal and
test_tampering.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onchain_samples as o
import pytest
from engine_kit import PlainSigner, Run, ScriptedBook, ScriptedPool, WarpClock, sale, venues_of, warped

from agent.domain.errors import ConfigError, SignerError
from agent.domain.events import OrderReported, OrderSent
from agent.domain.order import NEVER_SENT, OrderState
from agent.domain.plan import Call, Calls, Signed, Unsigned, VenueRequest
from agent.keys.accounts.kinds import Safe
from agent.keys.accounts.owners import Consent, packed
from agent.keys.accounts.safe import SafeTx, exec_data
from agent.keys.bounds import Act, Rule
from agent.keys.local import LocalSigner
from agent.keys.policy import swap_policy
from agent.keys.rules import charged
from agent.keys.spent import Spent
from agent.venues.uniswap import Config

SAFE = Safe("0x" + "5a" * 20, "0x" + "3b" * 20)
LIMIT = 50
HOURLY = Rule("hourly", "allow", frozenset({"swap"}), given=frozenset({o.USDC.lower()}), window_s=3_600, window_max=LIMIT)
Attack = Callable[[int], bytes | Call]


class RealClock:
    def now_ns(self) -> int:
        return time.time_ns()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class TakenOver:
    """The key is honest; what it is asked to sign on the chain is not."""

    key_id = "k"

    def __init__(self, attack: Attack, *, account: Safe | None = None, spent: Spent | None = None) -> None:
        rules = (HOURLY, Rule("rest", "allow", frozenset({"approve", "permit"}))) if spent is not None else ()
        self._attack, self._count, self.key = (
            attack,
            0,
            LocalSigner(bytearray(bytes.fromhex(o.KEY_HEX)), "", RealClock(), spent=spent),
        )
        tokens = frozenset({o.USDC, o.WETH})
        terms: Any = {"rules": rules, "account": account}
        self.key.allow(swap_policy(o.CHAIN, o.OWNER, o.ROUTER, o.PERMIT2, tokens, 100 * 10**9, 1_000_000, **terms))

    async def sign(self, unsigned: Unsigned) -> Signed:
        if isinstance(unsigned, VenueRequest):
            return await PlainSigner().sign(unsigned)
        self._count += 1
        made = self._attack(self._count)
        call = made if isinstance(made, Call) else Call(o.ROUTER, made)
        signed = await self.key.sign(Calls(unsigned.order_id, o.CHAIN, (call,), (), self._count, 900_000, 10**9, 1))
        raise AssertionError(f"it was signed: {signed}")


def swap(data: bytes, command: int = 0x00, deadline_s: int = o.DEADLINE_S) -> Attack:
    return lambda _: o.execute(bytes((command,)), [data], deadline_s)


def safe_call(operation: int, to: str) -> Call:
    tx = SafeTx(to, 0, o.approve(), operation)
    return Call(SAFE.address, exec_data(tx, packed((Consent(o.OWNER, "approved"),))))


def refusals(attack: Attack, **terms: Any) -> list[str]:
    """What the journal says became of each order on the chain, in one sale."""

    async def lived() -> list[str]:
        outside = venues_of(ScriptedBook(WarpClock(), 1), ScriptedPool(WarpClock(), 1))
        run = Run(outside, new_signer=lambda: TakenOver(attack, **terms))
        try:
            await run.engine.ready()
            await run.engine.priced("ETH/USDT")
            await run.engine.submit(sale())
            await run.engine.finished("p1")
            events = [record.event for record in run.journal.read()]
            await run.stop()
        finally:
            run.task.cancel()
            await asyncio.gather(run.task, return_exceptions=True)
        assert not outside["amm"].arrivals
        chain = {name for name, order in run.engine.state.orders.items() if order.plan.venue == "amm"}
        assert not [event for event in events if isinstance(event, OrderSent) and event.order_id in chain]
        return [e.reason for e in events if isinstance(e, OrderReported) and e.order_id in chain and e.state is OrderState.REJECTED]

    return warped(lived())


@pytest.mark.parametrize(
    ("attack", "terms", "why"),
    [
        pytest.param(swap(o.v3(o.THIEF)), {}, "which is not the owner", id="swapped recipient"),
        pytest.param(swap(o.v3(), deadline_s=o.DEADLINE_S + 7_200), {}, "sign for a shorter time", id="a deadline far ahead"),
        pytest.param(lambda _: b"\xde\xad\xbe\xef" + bytes(64), {}, "selector 0xdeadbeef is not allowed", id="unknown selector"),
        pytest.param(lambda _: Call(o.USDC, o.approve(amount=2**256 - 1)), {}, "an unlimited approval", id="unlimited approval"),
        pytest.param(lambda _: Call(o.USDC, o.approve(o.THIEF)), {}, "only Permit2", id="approval of a thief"),
        pytest.param(lambda _: Call(o.THIEF, b""), {}, "is not on this key's list", id="unknown contract"),
        pytest.param(lambda _: safe_call(1, o.USDC), {"account": SAFE}, "delegatecall", id="flipped operation byte"),
        pytest.param(lambda _: safe_call(0, o.THIEF), {"account": SAFE}, "not on this key's list", id="through the Safe"),
    ],
)
def test_it_is_refused_with_its_reason_and_that_is_in_the_journal(attack: Attack, terms: Any, why: str) -> None:
    said = refusals(attack, **terms)
    assert said
    assert all(one.startswith(NEVER_SENT) and why in one for one in said), said


def test_over_the_limit_in_one_is_refused_and_in_many_where_the_window_ends(tmp_path: Path) -> None:
    spent = Spent(tmp_path / "spent.jsonl", RealClock())
    said = refusals(swap(o.v3(given=LIMIT + 1)), spent=spent)
    assert said
    assert all("rule 'hourly' allows" in one for one in said)
    act = Act("swap", o.ROUTER.lower(), o.USDC.lower(), 20, o.WETH.lower(), 1)
    spent.reserve("1", charged((HOURLY,), (act,)))
    spent.reserve("2", charged((HOURLY,), (act,)))
    assert all("10 units of" in one for one in refusals(swap(o.v3(given=20)), spent=spent)), "what is left is told"
    with pytest.raises(SignerError, match="rule 'hourly' allows"):
        spent.reserve("3", charged((HOURLY,), (act,)))


@pytest.mark.parametrize("symbol", ["US\x1b[2JDT", "USDT\n[wallet]", "[red]USDT", "US DT", "USDT\u202e", 'U"S'])
def test_a_token_with_a_malicious_name_is_refused_before_anybody_reads_it(symbol: str) -> None:
    """Names reach terminals, logs and files; ₮ and dots are names that tokens have."""
    section = {
        "rpc_url": "http://127.0.0.1:1",
        "chain_id": o.CHAIN,
        "wallet": o.OWNER,
        "contracts": {"universal_router": o.ROUTER, "v2_factory": o.OTHER},
        "pools": [{"protocol": "v2", "base": "WETH", "quote": "USD₮0"}],
    }
    tokens = [{"symbol": "WETH", "address": o.WETH, "decimals": 18}, {"symbol": "USD₮0", "address": o.USDC, "decimals": 6}]
    assert Config.model_validate(section | {"tokens": tokens})
    with pytest.raises((ValueError, ConfigError), match="symbol"):
        Config.model_validate(section | {"tokens": [*tokens, {"symbol": symbol, "address": o.OTHER, "decimals": 6}]})


def test_the_samples_of_this_page_are_signed_when_they_are_honest() -> None:
    """Otherwise the refusals above might have another cause."""
    honest = TakenOver(swap(o.v3()))
    with pytest.raises(AssertionError, match="it was signed"):
        asyncio.run(honest.sign(Calls("a", o.CHAIN, (), (), 0, 0, 0, 0)))
    safe = TakenOver(lambda _: safe_call(0, o.USDC), account=SAFE)
    with pytest.raises(AssertionError, match="it was signed"):
        asyncio.run(safe.sign(Calls("a", o.CHAIN, (), (), 0, 0, 0, 0)))
