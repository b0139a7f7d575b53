"""What an order on the chain cost and how long it took, through whatever account and key: gas, and times out of the journal."""

from collections.abc import Iterable
from typing import Any

import msgspec

from agent.cli.show import line
from agent.domain.events import GasPaid, OrderApproved, OrderReported, OrderSent, Record
from agent.domain.order import OrderState
from agent.domain.plan import ApproveToken, SwapBatch

NS_PER_MS = 1_000_000


class OnChain(msgspec.Struct, frozen=True):
    """One order that was mined. `sent_ms`: from its approval until it left, with its rehearsal, its signature and the journal.

    `mined_ms`: from then until this agent saw it in a block, so most of it is the chain's own time between blocks.
    """

    order_id: str
    kind: str
    legs: int
    gas_used: int
    sent_ms: float
    mined_ms: float


def on_chain(records: Iterable[Record]) -> list[OnChain]:
    """In the order in which they were mined."""
    plans: dict[str, SwapBatch | ApproveToken] = {}
    approved: dict[str, int] = {}
    sent: dict[str, int] = {}
    gas: dict[str, int] = {}
    found: dict[str, OnChain] = {}
    for record in records:
        match record.event:
            case OrderApproved(approved=one) if isinstance(one.plan, SwapBatch | ApproveToken):
                plans[one.plan.order_id], approved[one.plan.order_id] = one.plan, record.at_ns
            case OrderSent(order_id=name):
                sent[name] = record.at_ns
            case GasPaid(order_id=name, gas_used=used):
                gas[name] = used
            case OrderReported(order_id=name, state=OrderState.MINED) if name in plans and name in sent and name not in found:
                plan = plans[name]
                legs = len(plan.legs) if isinstance(plan, SwapBatch) else 0
                kind = "batch" if legs else "permission"
                waits = (sent[name] - approved[name]) / NS_PER_MS, (record.at_ns - sent[name]) / NS_PER_MS
                found[name] = OnChain(name, kind, legs, gas.get(name, 0), *(round(one, 1) for one in waits))
    return list(found.values())


def account_told(custody: str, section: Any, found: list[OnChain]) -> dict[str, Any]:
    """For scripts: who holds the coins, what each transaction cost, and how long it took."""
    return {
        "custody": custody,
        "kind": section.account,
        "wallet": section.wallet,
        "holder": section.holder,
        "gas_used": sum(one.gas_used for one in found),
        "transactions": found,
    }


def tell_account(custody: str, section: Any, found: list[OnChain]) -> None:
    """For people, one line for each transaction."""
    line(f"account       {custody}, coins at {section.holder}")
    for one in found:
        what = f"{one.legs} pools" if one.legs > 1 else "1 pool" if one.legs else "permission"
        line(f"  {what:<11} {one.gas_used:>9,} gas, sent in {one.sent_ms:,.0f} ms, mined {one.mined_ms:,.0f} ms later")
