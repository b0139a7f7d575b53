"""What stands in for the machine under the agent: a key that guards nothing, a kill switch, a disk with troubles."""

import asyncio
from collections.abc import Callable, Iterator, Sequence

import msgspec

from agent.domain.amount import decode_hook, encode_hook
from agent.domain.errors import JournalError, SignerError
from agent.domain.events import Event, Record
from agent.domain.plan import Calls, Plan, Signed, SignedRequest, SignedTransaction, Unsigned, VenueRequest
from agent.journal.codec import Row
from agent.journal.memory import MemoryJournal
from agent.ports import Custody
from agent.simulation.drill.blocks import Body, hash_of
from agent.simulation.drill.clock import SECOND, world_ns
from agent.simulation.drill.faults import Weather
from agent.simulation.drill.market import CHAIN_ID, WALLET

Before = Callable[[Sequence[Event]], None]
Dies = Callable[[Event], str]  # whether the process dies at this record: "before" it is written, "after", or no


class PlaySigner:
    """Satisfies the port Signer. A transaction's bytes are what it does, in JSON; who may sign is not the question here."""

    key_id = "play"
    custody: Custody = Custody("local", "hot", "microseconds")

    def __init__(self, weather: Weather | None = None) -> None:
        self._weather = weather or Weather.calm()

    async def sign(self, unsigned: Unsigned) -> Signed:
        _refuse_some(self._weather)
        if self._weather.strikes("slow-signer"):
            await asyncio.sleep(self._weather.dice.seconds(0.5, 6.0))
        return _signed(unsigned)


class PromptPlaySigner:
    """The same as a key of this process, which answers at once (port PromptSigner)."""

    key_id = "play"
    custody: Custody = PlaySigner.custody

    def __init__(self, weather: Weather | None = None) -> None:
        self._weather = weather or Weather.calm()

    async def sign(self, unsigned: Unsigned) -> Signed:
        return self.sign_now(unsigned)

    def sign_now(self, unsigned: Unsigned) -> Signed:
        _refuse_some(self._weather)
        return _signed(unsigned)


def play_signer(weather: Weather) -> PlaySigner | PromptPlaySigner:
    """On most days the keys are in this process; on some, and on those with slow keys, somewhere else."""
    return PlaySigner(weather) if weather.is_keyed_elsewhere else PromptPlaySigner(weather)


def _refuse_some(weather: Weather) -> None:
    if weather.strikes("no-signature"):
        raise SignerError("the signer refuses; nothing was signed")


def _signed(unsigned: Unsigned) -> Signed:
    if isinstance(unsigned, VenueRequest):
        return SignedRequest(unsigned.order_id, unsigned, PlaySigner.key_id)
    if not isinstance(unsigned, Calls):
        raise SignerError("there is nothing to sign in that form here")
    plan: Plan = msgspec.json.decode(unsigned.calls[0].data, type=Plan, dec_hook=decode_hook)
    body = Body(unsigned.order_id, unsigned.nonce, unsigned.gas_limit, unsigned.gas_fee_max, unsigned.gas_tip, plan)
    raw = msgspec.json.encode(body, enc_hook=encode_hook)
    return SignedTransaction(unsigned.order_id, CHAIN_ID, WALLET, unsigned.nonce, hash_of(raw), raw)


class PlayLatch:
    """Satisfies the port Latch; pulled and released by the weather."""

    reason = ""

    def engaged(self) -> str:
        return self.reason


class PlayJournal:
    """Satisfies the port Journal over `rows`. Records are safe at once or, on a slow disk, up to a second later.

    `before` is called with every batch before it is written; `dies` says whether the process is killed there.
    """

    def __init__(self, rows: list[Row], weather: Weather, before: Before, dies: Dies) -> None:
        self._inner, self._weather, self._before, self._dies = MemoryJournal(rows), weather, before, dies
        self._safe: list[tuple[int, int]] = []  # (when, up to which record), rising
        self._safe_seq = self._inner.head[0]
        self.trouble = ""  # why nothing can be written any more

    @property
    def head(self) -> tuple[int, str]:
        return self._inner.head

    @property
    def warning(self) -> str:
        """Never: this disk fills up without one."""
        return ""

    @property
    def safe_seq(self) -> int:
        """The last record that a loss of power would leave."""
        now_ns = world_ns()
        while self._safe and self._safe[0][0] <= now_ns:
            self._safe_seq = self._safe.pop(0)[1]
        return self._safe_seq

    def die(self, why: str) -> None:
        """The process is gone: nothing is written any more."""
        self.trouble = self.trouble or why

    def remains(self, *, is_power_lost: bool) -> list[Row]:
        """What a new start finds."""
        return self._inner.rows[: self.safe_seq] if is_power_lost else list(self._inner.rows)

    def append(self, at_ns: int, events: Sequence[Event]) -> Sequence[Record]:
        if not self.trouble and self._weather.strikes("disk-full"):
            self.trouble = "the disk is full"
        if self.trouble:
            raise JournalError(self.trouble)
        self._before(events)
        deaths = [death for event in events if (death := self._dies(event))]
        if "before" in deaths:
            self.die("killed")
            raise JournalError("killed")
        records = self._inner.append(at_ns, events)
        self._write(records[-1].seq)
        if deaths:
            self.die("killed")
            raise JournalError("killed")
        return records

    def _write(self, seq: int) -> None:
        delay_ns = self._weather.dice.between(1, SECOND) if self._weather.strikes("slow-disk") else 0
        when_ns = max(world_ns() + delay_ns, self._safe[-1][0] if self._safe else 0)
        self._safe.append((when_ns, seq))

    async def secured(self, seq: int) -> None:
        if not self.trouble and self._weather.strikes("disk-error"):
            self.trouble = "the disk does not secure what was written"
        while not self.trouble and self.safe_seq < seq:  # noqa: ASYNC110 - in virtual time waiting costs nothing
            await asyncio.sleep(max(self._safe[0][0] - world_ns(), 1) / SECOND)
        if self.trouble:
            raise JournalError(self.trouble)

    def read(self, after_seq: int = 0) -> Iterator[Record]:
        return self._inner.read(after_seq)

    def verify(self, anchor: tuple[int, str] | None = None) -> tuple[int, str]:
        return self._inner.verify(anchor)

    def close(self) -> None:
        self._inner.close()
