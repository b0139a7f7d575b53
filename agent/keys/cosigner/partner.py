"""The agent's side of one pair of signers: a link to a cosigner, presignatures made with it, and signatures put together here.

Presignatures are made while nothing is asked, up to a mark; when there are none, one is made while the request waits. The
cosigner's half of a signature is of no use to anybody without ours, which never leaves this process.
"""

import asyncio
import os

from agent.domain.errors import SignatureUnknownError, SignerError, SignerUnavailableError
from agent.domain.plan import TypedData
from agent.keys.cosigner.group import Group
from agent.keys.cosigner.identity import Identity
from agent.keys.cosigner.link import Link, PeerRefusedError
from agent.keys.cosigner.pool import POOL_MAX, Pool
from agent.keys.cosigner.run import CeremonyFailedError, Run, conducted, execution_id
from agent.keys.cosigner.wire import NONCE_BYTES, PROTOCOL, About, Done, Nonce, Partial, Propose, Sign, Start, Who, typed_text
from agent.keys.steps import Preimage
from agent.keys.threshold import engine

IDLE_S = 0.5  # since the last request, before presignatures are made ahead
STRIKES_MAX = 2  # ceremonies in which it was found to cheat; then it is not asked until a person has looked
ABOUT_S = 3.0
ANSWER_S, AGAIN_S = 1.5, 0.5  # of a signature, which takes milliseconds; of the same one, asked for once more


class FalsePartialError(SignerError):
    """The cosigner's share of a signature is false: it, or what runs in its place, cheats."""


class Partner:
    """One cosigner, as the agent's party sees it."""

    __slots__ = (
        "_asked_at",
        "_group",
        "_is_filling",
        "_link",
        "_making",
        "_mark",
        "_ours",
        "_share",
        "_strikes",
        "fault",
        "pool",
    )

    def __init__(self, identity: Identity, group: Group, share: engine.KeyShare, party: int, mark: int) -> None:
        """`mark`: up to how many presignatures wait for use."""
        self._link = Link(identity, group, share.party, party)
        self._group, self._share, self._ours, self._mark = group, share, share.party, mark
        self.pool = Pool()
        self._strikes, self._is_filling = 0, False
        self.fault = ""  # why it is not asked any more until a restart
        self._making: asyncio.Task[None] | None = None  # one presignature at a time
        self._asked_at = asyncio.get_running_loop().time()

    @property
    def name(self) -> str:
        return self._link.name

    @property
    def is_up(self) -> bool:
        return self._link.is_up

    async def about(self) -> About:
        """Who answers. Raises SignerUnavailableError when nobody does, SignerError when it is of another group or has no share."""
        try:
            found = await self._link.ask(Who(PROTOCOL, self._group.id), About, ABOUT_S)
        except SignatureUnknownError:
            raise SignerUnavailableError(
                f"party {self.name} left without an answer; look at its log and at both group files"
            ) from None
        if found.protocol != PROTOCOL or found.group != self._group.id:
            raise SignerError(f"party {self.name} has another group file; give every party the same one")
        if found.state != "ready" or found.fingerprint != self._share.fingerprint:
            raise SignerError(f"party {self.name} holds no share of this key in use; finish the set-up there, and restart it")
        return found

    async def signature(self, preimage: Preimage) -> bytes:
        """r, s and v (27 or 28). Raises SignerError when it refuses, SignerUnavailableError when it is away and signed nothing,
        SignatureUnknownError when its answer was lost.
        """
        self._asked_at = asyncio.get_running_loop().time()
        if self.fault:
            raise SignerUnavailableError(self.fault)
        for _ in range(2):  # once more when its pool turns out to be gone: it was restarted
            presignature = await self._next()
            try:
                return await self._signed(presignature, preimage)
            except PeerRefusedError as refusal:
                if refusal.why == "refused":
                    raise SignerError(f"party {self.name} refuses: {refusal}") from None
                if refusal.why == "lost":
                    raise SignatureUnknownError(f"party {self.name}: {refusal}") from None
                self.pool.clear()
        raise SignerUnavailableError(f"party {self.name} has lost its presignatures twice; look at its log")

    async def warm(self, count: int) -> None:
        """Wait until that many presignatures are there. Raises what making them does."""
        while len(self.pool) < min(count, POOL_MAX):
            await self._one_more()

    async def refill(self) -> None:
        """Up to the mark once the pool has sunk to half of it, while nothing is asked. Raises what making one does."""
        clock = asyncio.get_running_loop().time
        while len(self.pool) < self._mark and not self.fault and (self._is_filling or len(self.pool) <= self._mark // 2):
            self._is_filling = True
            idle_s = clock() - self._asked_at
            if idle_s < IDLE_S:
                await asyncio.sleep(IDLE_S - idle_s)
            else:
                await self.warm(len(self.pool) + 1)
        self._is_filling = False

    async def close(self) -> None:
        """Presignatures are gone afterwards."""
        if self._making is not None:
            self._making.cancel()
            await asyncio.wait([self._making])
        self.pool.clear()
        await self._link.close()

    async def _signed(self, presignature: engine.Presignature, preimage: Preimage) -> bytes:
        typed = typed_text(preimage.source) if isinstance(preimage.source, TypedData) else b""
        asked = Sign(os.urandom(16), presignature.execution_id, preimage.kind, preimage.data, typed)
        try:
            partial = await self._link.ask(asked, Partial, ANSWER_S)
        except SignatureUnknownError:  # the very same request: it is answered as before, or taken now
            partial = await self._once_more(asked)
        try:
            signing = presignature.sign(preimage.data)
            found = signing.combine({self._link.party: partial.partial})
        except engine.ThresholdError as error:
            self.fault = f"party {self.name} gave a false share of a signature ({error}); look at both machines, then restart"
            raise FalsePartialError(self.fault) from None
        return found[:64] + bytes((found[64] + 27,))

    async def _once_more(self, asked: Sign) -> Partial:
        try:
            return await self._link.ask(asked, Partial, AGAIN_S)
        except SignerUnavailableError:
            raise SignatureUnknownError(
                f"party {self.name} was asked and is away now; whether it signed its half is not known"
            ) from None

    async def _made(self) -> engine.Presignature:
        """A new presignature. Raises SignerUnavailableError when it cannot be made now."""
        try:
            return await self._presign()
        except CeremonyFailedError as error:
            self._strikes += bool(error.guilty)
            if self._strikes >= STRIKES_MAX:
                self.fault = f"party {self.name} was found to cheat ({error}); look at both machines, then restart"
            raise
        except SignerUnavailableError:
            raise
        except SignatureUnknownError:
            raise SignerUnavailableError(f"party {self.name} left while a presignature was made; nothing was signed") from None
        except SignerError as error:
            raise SignerUnavailableError(f"party {self.name} makes no presignature now: {error}") from None

    async def _next(self) -> engine.Presignature:
        """The oldest that waits, else a new one."""
        while (found := self.pool.take_oldest()) is None:
            await self._one_more()
        return found

    async def _one_more(self) -> None:
        """In the pool on return. It goes on when whoever waits gives up: what is half made is not thrown away."""
        if self._making is None or self._making.done():
            self._making = asyncio.create_task(self._make())
            self._making.add_done_callback(lambda done: done.cancelled() or done.exception())  # heard, if nobody waits
        await asyncio.shield(self._making)

    async def _make(self) -> None:
        self.pool.put(await self._made())

    async def _presign(self) -> engine.Presignature:
        theirs = await self._link.ask(Propose("presign"), Nonce)
        nonces = tuple(sorted([(self._ours, os.urandom(NONCE_BYTES)), (self._link.party, theirs.nonce)]))
        run_id = execution_id("presign", self._group.id, self._share.fingerprint, nonces)
        run = Run(run_id, engine.presign(self._share, sorted((self._ours, self._link.party)), run_id))
        await self._link.ask(Start("presign", nonces), Done)
        return await conducted(run, [self._link])
