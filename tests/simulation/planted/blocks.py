"""Bugs of the chain: numbers of transactions, what outbids, and blocks that are taken back."""

from typing import Any

import msgspec
import pytest

from agent.domain.events import OrderReorged
from agent.domain.order import TRANSITIONS, OrderState
from agent.engine import decide, inquire, record, supervise, tend
from agent.engine.record import Recorder
from agent.engine.state import State
from agent.engine.supervise import Supervisor
from agent.simulation.drill.blocks import hash_of
from planted import bug, instead

S = OrderState


@bug("wallet", (15, 5, 25, 6), "node-silent", "deaf")
def doubt_gives_its_number_back(patch: pytest.MonkeyPatch) -> None:
    """A transaction that no node answered for is left aside, and the next one takes its number."""

    def next_nonce(right: Any, self: State, venue: str, mined: int) -> int:
        used = self.nonces.get(venue, {})
        self.nonces[venue] = {number: name for number, name in used.items() if self.orders[name].state is not S.UNKNOWN}
        try:
            return int(right(self, venue, mined))
        finally:
            self.nonces[venue] = used

    def stuck(right: Any, now: State, *rest: Any) -> Any:
        working, now.working = now.working, {}
        try:
            return right(now, *rest)
        finally:
            now.working = working

    def under_way(right: Any, self: State) -> Any:
        return [one for one in right(self) if one.state is not S.UNKNOWN]

    instead(patch, State, "next_nonce", next_nonce)
    instead(patch, State, "chain_orders", under_way)
    instead(patch, decide, "_stuck", stuck)


@bug("wallet", (0, 2, 1, 3), "deaf")
def the_node_knows_the_next_number(patch: pytest.MonkeyPatch) -> None:
    """The next number is what the chain has mined, whatever else is under way."""
    instead(patch, State, "next_nonce", lambda right, self, venue, mined: mined)


@bug("wallet", (8, 11, 0, 3), "no-signature")
def a_number_is_never_given_back(patch: pytest.MonkeyPatch) -> None:
    """Every transaction takes the number after the highest ever used; one that never left leaves a gap."""
    highest: dict[int, int] = {}

    def next_nonce(right: Any, self: State, venue: str, mined: int) -> int:
        number = max(int(right(self, venue, mined)), highest.get(id(self), -1))
        highest[id(self)] = number + 1
        return number

    instead(patch, State, "next_nonce", next_nonce)


@bug("wallet", (5, 0, 3, 1), "spike")
def what_outbids_has_a_number_of_its_own(patch: pytest.MonkeyPatch) -> None:
    """The second transaction of an order does not compete with the first: both may happen."""

    def again(right: Any, plan: Any, first: Any, nonce: int, attempt: int, limits: Any) -> Any:
        return right(plan, first, nonce + 1, attempt, limits)

    instead(patch, tend, "approve_again", again)


@bug("wallet", (5, 10, 3, 1), "spike")
def five_percent_outbid(patch: pytest.MonkeyPatch) -> None:
    """A replacement pays 5 % more, which no node takes."""

    def outbid(right: Any, fee_max: int, tip: int, base_fee: int, tip_usual: int, cap: int) -> Any:
        return None if right(fee_max, tip, base_fee, tip_usual, cap) is None else (-(-fee_max * 105 // 100), -(-tip * 105 // 100))

    instead(patch, tend, "outbid", outbid)


@bug("live", (5, 0, 3, 1), "spike")
def nobody_outbids(patch: pytest.MonkeyPatch) -> None:
    """A transaction that pays too little waits, and so does everything behind it."""
    instead(patch, tend, "_compete", lambda right, *some: ())


@bug("durable-first", (5, 1, 3, 0), "dropped")
def what_was_dropped_is_signed_anew(patch: pytest.MonkeyPatch) -> None:
    """A transaction that nodes forgot is sent again with other bytes, which nobody wrote down."""

    def signed(right: Any, order_id: str, chain_id: int, wallet: str, nonce: int, tx_hash: str, raw: bytes) -> Any:
        other = raw + b" "
        return right(order_id, chain_id, wallet, nonce, hash_of(other), other)

    instead(patch, supervise, "SignedTransaction", signed)


@bug("live", (0, 4, 3, 5), "node-forgot")
def what_was_dropped_is_waited_for(patch: pytest.MonkeyPatch) -> None:
    """Nobody sends a transaction again that the nodes forgot."""

    async def nothing(right: Any, self: Supervisor, *some: Any) -> None:
        return

    instead(patch, Supervisor, "_rebroadcast", nothing)
    instead(patch, tend, "_compete", lambda right, *some: ())


@bug("wallet", (7, 1, 3, 0), "deaf")
def two_batches_share_a_permit(patch: pytest.MonkeyPatch) -> None:
    """A second transaction is planned while the first waits, with the permit that the first will use up."""
    instead(patch, decide, "_busy_chains", lambda right, *some: set())


@bug("wallet", (2, 0, 4, 3))
def a_permit_is_read_once(patch: pytest.MonkeyPatch) -> None:
    """What Permit2 said before a transaction was mined still counts afterwards."""
    seen: dict[tuple[int, str, str], Any] = {}

    def absorb(right: Any, self: Recorder, venue: str, facts: Any) -> None:
        right(self, venue, facts)
        for key, allowance in self.world.allowances.items():
            first = seen.setdefault((id(self), *key), allowance)
            self.world.allowances[key] = msgspec.structs.replace(allowance, permit_nonce=first.permit_nonce)

    instead(patch, Recorder, "absorb", absorb)


@bug("fills", (2, 1, 0, 3), "reorg")
def a_reorganisation_is_not_noticed(patch: pytest.MonkeyPatch) -> None:
    """A block that is gone changes nothing in the books."""
    instead(patch, record, "is_news", lambda right, now, event: not isinstance(event, OrderReorged) and right(now, event))


@bug("fills", (2, 1, 0, 3), "reorg")
def a_reorganisation_takes_trades_back_and_not_gas(patch: pytest.MonkeyPatch) -> None:
    """The gas of a transaction whose block is gone stays booked."""

    def reorged(right: Any, self: State, event: Any) -> None:
        order = self.orders[event.order_id]
        paid = order.gas_paid.pop(event.tx_hash, None)
        right(self, event)
        if paid is not None:
            order.gas_paid[event.tx_hash] = paid

    instead(patch, State, "_reorged", reorged)


@bug("fills", (8, 3, 4, 0), "reorg")
def a_reorganisation_takes_gas_back_and_not_trades(patch: pytest.MonkeyPatch) -> None:
    """The trades of a transaction whose block is gone stay booked."""

    def reorged(right: Any, self: State, event: Any) -> None:
        order = self.orders[event.order_id]
        fills, order.fills = order.fills, []
        right(self, event)
        order.fills = fills
        self._settle(order)

    instead(patch, State, "_reorged", reorged)


@bug("live", (6, 4, 0, 3), "reorg", "dropped")
def a_transaction_that_is_gone_stays_mined(patch: pytest.MonkeyPatch) -> None:
    """Trades and gas are taken back, and the order still counts as mined."""

    def reorged(right: Any, self: State, event: Any) -> None:
        order = self.orders[event.order_id]
        was = order.state
        right(self, event)
        order.state = was
        self._settle(order)

    instead(patch, State, "_reorged", reorged)


@bug("fills", (53, 33, 37, 17), "older-mined", "deaf", "spike", "kill", "node-silent")
def only_the_newest_hash_is_asked_for(patch: pytest.MonkeyPatch) -> None:
    """Of several transactions with one number the last is followed, and a miner has taken an older one."""

    def reference(right: Any, order: Any) -> Any:
        found = right(order)
        return msgspec.structs.replace(found, tx_hashes=found.tx_hashes[-1:], cancel_hashes=found.cancel_hashes[-1:])

    instead(patch, inquire, "reference_of", reference)


@bug("strangers", (17, 10, 8, 0), "foreign")
def somebody_else_s_number_is_ours(patch: pytest.MonkeyPatch) -> None:
    """That another program uses the wallet's key is not noticed."""
    instead(patch, State, "foreign_nonce", lambda right, *some: None)


@bug("states", (1, 5, 0, 3), "reverts")
def a_revert_is_a_success(patch: pytest.MonkeyPatch) -> None:
    """A transaction that reverted is booked as mined: its parent never tries again."""
    for here in (S.SENT, S.UNKNOWN, S.OPEN):
        patch.setitem(TRANSITIONS, here, TRANSITIONS[here] | {S.REVERTED: S.MINED})
