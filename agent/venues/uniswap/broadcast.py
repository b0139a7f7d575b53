"""Signed bytes out: to the public nodes, or to a private relay first. After any error one last look: what landed late is a success.

A relay's words prove nothing, neither its yes nor its no: what went there counts as sent and unknown until it is in a block, and
receipts are never taken from it. Only swaps go there; a transaction that takes another back goes to everybody, since it has nothing
to hide.
"""

from collections.abc import Sequence
from contextlib import suppress

from agent.chains.rpc import Node, Rpc
from agent.chains.transaction import parse_raw
from agent.domain.errors import ChainError, OutcomeUnknown, VenueError
from agent.domain.events import OrderReported
from agent.domain.order import OrderState
from agent.domain.plan import Signed, SignedTransaction
from agent.ports import Clock, PrivateFact
from agent.venues.uniswap.config import Config
from agent.venues.uniswap.orders import Lane, Transactions


class Broadcast:
    """Sends the transactions of one wallet, each once for each time of asking."""

    def __init__(self, venue: str, config: Config, rpc: Node, orders: Transactions, clock: Clock) -> None:
        self._venue, self._config, self._rpc, self._orders, self._clock = venue, config, rpc, orders, clock
        url = config.private_rpc_url
        self._relay = Rpc(url, config.chain_id, config.timeout_s) if url else None

    async def send(self, signed: Signed) -> Sequence[PrivateFact]:
        """Hand signed bytes on, once. Raises ChainError if certainly not accepted, OutcomeUnknown if nobody knows."""
        if not isinstance(signed, SignedTransaction):
            raise VenueError(f"{self._venue} sends signed transactions, not {type(signed).__name__}")
        if signed.chain_id != self._config.chain_id or signed.sender.lower() != self._config.wallet.lower():
            raise ChainError(
                f"{signed.order_id} is signed by {signed.sender} for chain {signed.chain_id}, not by this venue's wallet"
            )
        lane, was_sent = self._orders.watch(signed)
        try:
            return await self._hand_on(signed, lane)
        except (ChainError, OutcomeUnknown) as error:
            found = await self._last_look(signed, error)
            if found:
                return found
            if isinstance(error, ChainError) and was_sent:  # what was sent before for this nonce may still happen
                raise OutcomeUnknown(f"{error}; but it was sent before: ask for it by its hash") from None
            if isinstance(error, ChainError):
                self._orders.forget(signed.order_id)
            raise

    async def close(self) -> None:
        if self._relay is not None:
            await self._relay.close()

    async def _hand_on(self, signed: SignedTransaction, lane: Lane) -> Sequence[PrivateFact]:
        if self._relay is not None and self._is_swap(signed.raw) and not self._is_overdue(lane):
            await self._whisper(self._relay, signed.raw)
            return ()
        if self._relay is not None and signed.tx_hash.lower() in lane.cancels:
            with suppress(OutcomeUnknown):
                await self._whisper(self._relay, signed.raw)
        found = await self._rpc.send_raw(signed.raw)
        if found.lower() != signed.tx_hash.lower():
            raise OutcomeUnknown(
                f"{self._rpc.place} names the transaction {found[:66]!r}, not {signed.tx_hash}: ask for it by its hash"
            )
        return (OrderReported(signed.order_id, OrderState.OPEN, venue_order_id=signed.tx_hash, tx_hash=signed.tx_hash),)

    async def _whisper(self, relay: Rpc, raw: bytes) -> None:
        """To the relay. Raises OutcomeUnknown, whatever it says against it."""
        try:
            if not relay.is_open:
                await relay.open()
            await relay.send_raw(raw)
        except ChainError as error:
            raise OutcomeUnknown(
                f"the private relay does not help ({error}); nobody else was told: ask for it by its hash"
            ) from None

    async def _last_look(self, signed: SignedTransaction, error: ChainError | OutcomeUnknown) -> Sequence[PrivateFact]:
        """A refusal is only answered by a block; a doubt also by a node that holds these very bytes."""
        try:
            found = await self._orders.last_look(signed.order_id, signed.tx_hash)
        except ChainError:
            return ()
        is_waiting = all(isinstance(fact, OrderReported) and fact.state is OrderState.OPEN for fact in found)
        return () if is_waiting and isinstance(error, ChainError) else found

    def _is_swap(self, raw: bytes) -> bool:
        message = parse_raw(raw)
        return message.to == self._config.swaps_to.lower() and bool(message.data)

    def _is_overdue(self, lane: Lane) -> bool:
        """Whether the relay had its time, and the user allows the public to see it then."""
        wait_s = self._config.private_fallback_s
        return wait_s > 0 and self._clock.now_ns() - lane.since_ns >= wait_s * 10**9
