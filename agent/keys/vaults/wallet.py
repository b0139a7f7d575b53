"""`kind = "wallet"`: the address of `[wallet]` itself. Its key signs at once, so its tickets are over within a block.

Its numbers are the agent's own: move its coins while no agent trades with it.
"""

from collections.abc import Sequence
from typing import Literal

from agent.domain.errors import SignerError, SignerUnavailableError
from agent.domain.plan import Call
from agent.keys.filing import Means, ended, filed
from agent.keys.secrets import Secrets
from agent.keys.section import Section
from agent.keys.sending import fate, made, sent
from agent.keys.tickets import Filed
from agent.ports import Custody, Signer, Ticket

CUSTODY = Custody("wallet", "hot", "seconds")


class Config(Section):
    """`address`: the wallet's."""

    kind: Literal["wallet"] = "wallet"


async def open_vault(
    means: Means,
    config: Config,
    keys: Sequence[Signer],  # noqa: ARG001 - every kind is opened alike
    executor: Signer | None,
    secrets: Secrets,  # noqa: ARG001
) -> "WalletVault":
    """Raises SignerError when `[wallet]` is another address, or cannot be opened."""
    held = str(getattr(executor, "address", ""))
    if executor is not None and held != config.address:
        raise SignerError(f"{means.name} is {config.address}, [wallet] opens {held}; make them the same")
    return WalletVault(means, config.address, executor)


class WalletVault:
    """Satisfies the port Vault."""

    __slots__ = ("_means", "_signer", "address")

    def __init__(self, means: Means, address: str, signer: Signer | None) -> None:
        self._means, self.address, self._signer = means, address, signer

    @property
    def custody(self) -> Custody:
        return self._means.custody(CUSTODY)

    async def propose(self, request: str, calls: Sequence[Call]) -> Ticket:
        """As the port says: one call, sent at once."""
        async with self._means.tickets.turn():
            one, is_new = filed(self._means, request, calls, calls_max=1)
            return (await self._advanced(one)).ticket if is_new else one.ticket

    async def poll(self, ticket: Ticket) -> Ticket:
        async with self._means.tickets.turn():
            return (await self._advanced(self._means.tickets.find(ticket.id))).ticket

    async def refuse(self, ticket: Ticket, reason: str) -> Ticket:
        """Only before it was sent."""
        async with self._means.tickets.turn():
            one = self._means.tickets.find(ticket.id)
            if one.ticket.state not in ("waiting", "ready"):
                raise SignerError(f"ticket {one.ticket.id} is {one.ticket.state}; it cannot be taken back")
            return ended(self._means, one, "refused", reason).ticket

    async def close(self) -> None:
        """The key is closed by whoever opened it."""

    async def _advanced(self, one: Filed) -> Filed:
        tickets = self._means.tickets
        if one.ticket.state in ("waiting", "ready"):
            one = await self._sent(one)
        if one.ticket.state != "sent":
            return one
        match await fate(self._means.chain, one):
            case "done":
                return tickets.moved(one, "done", raw="")
            case "failed":
                return ended(self._means, one, "refused", f"it failed in a block; look at {one.ticket.tx_hash}")
            case "replaced":
                why = f"another transaction used its number {one.notes['nonce']}; look at {self.address} before asking anew"
                return tickets.moved(one, "refused", why)
            case "":
                return one

    async def _sent(self, one: Filed) -> Filed:
        if self._signer is None:
            return self._means.tickets.moved(one, "ready", "it waits for the key of [wallet]")
        try:
            calls = await made(self._means.chain, self.address, one.calls[0], self._means.policy.gas_fee_max, one.ticket.id)
            return await sent(self._means.chain, self._means.tickets, one, calls, self._signer)
        except SignerUnavailableError as error:
            return self._means.tickets.moved(one, "ready", str(error))
