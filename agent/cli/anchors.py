"""What chains remember of the journal (`audit verify`), and one more head for them (`audit anchor`)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from agent.app import RealClock, open_reader, running_engine
from agent.cli.options import ask
from agent.cli.outcome import refuse, started
from agent.cli.reading import follow, replay
from agent.config import Loaded
from agent.domain.errors import ConfigError, JournalError, OutcomeUnknown, UsageError, VenueError
from agent.domain.events import Record
from agent.domain.order import Order, OrderState
from agent.engine.state import State
from agent.gateways import local
from agent.journal.codec import ChainError as CutError
from agent.ports import Anchoring

if TYPE_CHECKING:
    from agent.chains.anchors import AnchoredHead

GRACE_S = 30.0  # after an order's own deadline, until nobody waits for it any longer
NOBODY = "no venue keeps heads"
SET_IT = "set contracts.audit_anchor in the section of a venue on a chain"
Status = Literal["ok", "fail", "nothing", "not compared"]


class Contracts(msgspec.Struct, frozen=True):
    audit_anchor: str = ""


class Keeper(msgspec.Struct, frozen=True):
    """What reading anchors needs of a venue's section; whatever else stands there does not matter now."""

    rpc_url: str
    chain_id: int
    wallet: str
    contracts: Contracts
    rpc_url_second: str = ""

    async def heads(self) -> "list[AnchoredHead]":
        """Oldest first. Raises ChainError."""
        from agent.chains.anchors import read_anchors

        urls = self.rpc_url, self.rpc_url_second
        return await read_anchors(urls, self.chain_id, self.contracts.audit_anchor, self.wallet, RealClock())


class Seen(msgspec.Struct):
    """What one chain says, and how the journal stands to it."""

    venue: str
    contract: str
    wallet: str
    status: Status
    heads: int
    newest: str  # SEQ:HASH, empty if there is none
    error: str


def keepers(loaded: Loaded) -> dict[str, Keeper]:
    """The venues that keep heads, by name. Raises ConfigError for a section that does not say where."""
    found = {}
    for name, section in loaded.settings.venues.items():
        contracts = section.get("contracts")
        if isinstance(contracts, Mapping) and contracts.get("audit_anchor"):
            try:
                found[name] = msgspec.convert(section, Keeper)
            except msgspec.ValidationError as error:
                raise ConfigError(f"{loaded.path.name}: venues.{name}: {error}; correct it there") from None
    return found


async def look(places: Mapping[str, Keeper]) -> "dict[str, list[AnchoredHead] | str]":
    """By venue: the heads that its chain has, or why it cannot be asked."""

    async def one(keeper: Keeper) -> "list[AnchoredHead] | str":
        try:
            return await keeper.heads()
        except (VenueError, UsageError) as error:
            return str(error)

    return dict(zip(places, await asyncio.gather(*map(one, places.values())), strict=True))


def compare(journal: Any, last: int, venue: str, heads: "list[AnchoredHead]") -> None:
    """Hold a journal of `last` records, which is whole in itself, against what a chain has. Raises JournalError."""
    agreed = 0
    for one in heads:
        where = f"at {venue} in block {one.block} by {one.tx_hash}" if one.tx_hash else f"at {venue}"
        if one.seq > last:
            text = f"the journal ends at record {last}, but record {one.seq} was anchored {where}"
            raise CutError(last + 1, f"{text}; restore the journal from a copy")
        if next(iter(journal.read(one.seq - 1))).hash != one.head:
            known = f"up to record {agreed} it agrees with the chain" if agreed else "no earlier head is known there"
            text = f"journal record {one.seq} is not the one that was anchored {where}; {known}"
            raise JournalError(f"{text}; restore the journal from a copy")
        agreed = one.seq


# -- one more ----------------------------------------------------------------------------------------------------------


async def write(loaded: Loaded, venue: str, *, live: bool, quiet: bool) -> tuple[Anchoring, Order]:
    """Anchor the journal's head: by the agent that runs here, or else with an engine of our own that trades nothing.

    Returns how it ended. Raises RefusedError with the reasons; OutcomeUnknown when its end is not known in time; VenueError when
    the chain remembers another journal, whose traces must not be overwritten.
    """
    name, keeper = _chosen(loaded, venue)
    heads = await keeper.heads()
    _refuse_other(loaded, name, heads)
    within_s = loaded.settings.execution.deadline_s + GRACE_S
    if local.is_running(loaded.home):
        state = replay(loaded)
        found = local.read_anchoring(await local.ask(loaded.home, local.Anchor(name)))
        refuse(found.reasons)
        return found, await _ended(follow(loaded, state), state, found.order_id, within_s)
    async with running_engine(loaded, live=live, ask=ask, is_idle=True) as engine:
        await started(engine, quiet=quiet)
        records = engine.events()
        found = await engine.anchor(name)
        refuse(found.reasons)
        return found, await _ended(records, engine.state, found.order_id, within_s)


def _chosen(loaded: Loaded, venue: str) -> tuple[str, Keeper]:
    found = keepers(loaded)
    if venue:
        found = {name: keeper for name, keeper in found.items() if name == venue}
    if len(found) > 1:
        raise UsageError(f"several venues keep heads: name one of {', '.join(found)} with --venue")
    if not found:
        who = f"{venue[:40]} keeps no heads" if venue else NOBODY
        raise UsageError(f"{who} of the journal; {SET_IT}")
    return next(iter(found.items()))


def _refuse_other(loaded: Loaded, venue: str, heads: "list[AnchoredHead]") -> None:
    journal = open_reader(loaded)
    if journal is None:
        raise UsageError("there is no journal yet; `isthmus run` or `isthmus order submit` begins one")
    with contextlib.closing(journal):
        try:
            compare(journal, journal.head[0], venue, heads)
        except JournalError as error:
            raise VenueError(f"not anchored: {error}") from None


async def _ended(records: AsyncIterator[Record], state: State, order_id: str, within_s: float) -> Order:
    """The order once nothing can happen through it any more. `state` has every record that comes."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            while not ((order := state.orders.get(order_id)) and order.is_settled):
                if await anext(records, None) is None:
                    break
    order = state.orders.get(order_id)
    if order is None or not order.is_settled:
        known = order.state if order else OrderState.APPROVED
        raise OutcomeUnknown(
            f"{order_id} is {known} and in no block yet; `isthmus run` goes on asking, `isthmus order show {order_id}` tells"
        )
    return order
