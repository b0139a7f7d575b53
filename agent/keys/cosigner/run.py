"""One party's side of one ceremony: the engine computes in a thread, and its messages wait here until they are fetched.

Between two parties the one that dials carries the mail both ways, so a party that nobody can reach may still take part.
"""

import asyncio
import hashlib
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

from agent import observe
from agent.domain.errors import SignerError, SignerUnavailableError
from agent.keys.cosigner.link import Link
from agent.keys.cosigner.wire import BODY_BYTES_MAX, Done, Fetch, Mail, Post
from agent.keys.threshold import engine

FETCH_S = 4.0  # how long an answer to `Fetch` may wait for something to say
MAIL_BYTES_MAX = BODY_BYTES_MAX  # of several messages in one frame, unless it is a single one
MESSAGES_MAX = 256  # of one sender in one ceremony; the longest has some dozen
PATIENCE_S = {"keygen": 60.0, "aux": 400.0, "presign": 40.0}  # until a ceremony is given up, on a slow and busy machine

T = TypeVar("T")


class CeremonyFailedError(SignerUnavailableError):
    """It ended without a result. `guilty`: the parties that cheated, where that is known."""

    def __init__(self, phase: str, reason: str, guilty: tuple[int, ...] = ()) -> None:
        super().__init__(reason)
        self.phase, self.guilty = phase, guilty


class Run(Generic[T]):
    """Owns a ceremony from its start to its result."""

    __slots__ = ("_ceremony", "_changed", "_inbox", "_outbox", "_taken", "_told", "failure", "id", "is_over", "others")

    def __init__(self, run_id: bytes, ceremony: engine.Ceremony[T]) -> None:
        self.id, self._ceremony = run_id, ceremony
        self.others = tuple(party for party in ceremony.parties if party != ceremony.party)
        self._inbox: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue(MESSAGES_MAX * len(self.others))
        self._outbox: dict[int, list[bytes]] = {party: [] for party in self.others}
        self._taken = dict.fromkeys(self.others, 0)
        self._changed, self._told = asyncio.Event(), asyncio.Event()
        self.failure = ""
        self.is_over = False  # set by `finish`, when whoever owns the result has put it in its place

    async def work(self) -> T:
        """To the result. Raises CeremonyFailedError; the caller bounds the time."""
        try:
            self._send(await asyncio.to_thread(self._ceremony.start))
            while not self._ceremony.is_done:
                sender, body = await self._inbox.get()
                try:
                    self._send(await asyncio.to_thread(self._ceremony.receive, sender, body))
                except engine.MessageRefused as error:  # dropped and told: the right one may still come
                    observe.ceremony_message_refused(self._ceremony.phase, sender, str(error))
            return self._ceremony.result()
        except engine.ThresholdError as error:
            self.fail(f"the ceremony broke off: {error}")
            raise CeremonyFailedError(error.phase, self.failure, error.guilty) from None

    def finish(self) -> None:
        """The result is in its place: the others may be told that it is over."""
        self.is_over = True
        self._change()

    def fail(self, reason: str) -> None:
        """There will be no result: the others may be told that, too."""
        self.failure = reason
        self._change()

    def post(self, sender: int, first: int, bodies: Sequence[bytes]) -> None:
        """Messages from another party, each taken once. Raises SignerError for what is out of order or out of bounds."""
        if sender not in self._taken:
            raise SignerError("a message for a ceremony that its sender has no part in")
        taken = self._taken[sender]
        if not 0 <= first <= taken or first + len(bodies) > MESSAGES_MAX or any(len(body) > BODY_BYTES_MAX for body in bodies):
            raise SignerError("messages of a ceremony that are out of order, or too many, or too long")
        for body in bodies[taken - first :]:
            self._inbox.put_nowait((sender, bytes(body)))
            self._taken[sender] += 1

    async def fetch(self, peer: int, have: int) -> Mail:
        """What is there for `peer` after its first `have`, as soon as there is something, or after FETCH_S."""
        if peer not in self._outbox or have < 0:
            raise SignerError("mail of a ceremony is for its own parties")
        try:
            async with asyncio.timeout(FETCH_S):
                while not (len(self._outbox[peer]) > have or self.is_over or self.failure):
                    await self._changed.wait()
        except TimeoutError:
            return Mail((), False)
        if self.failure:
            raise SignerError(self.failure)
        bodies = _fitting(self._outbox[peer][have:])
        is_over = self.is_over and have + len(bodies) >= len(self._outbox[peer])
        if is_over:
            self._told.set()
        return Mail(bodies, is_over)

    async def told(self) -> None:
        """Until one who fetches knows that it is over."""
        await self._told.wait()

    async def carry(self, link: Link) -> None:
        """Bring our messages to a party and fetch its own, until both sides are done."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._bring(link))
            both.create_task(self._collect(link))

    async def _bring(self, link: Link) -> None:
        sent = 0
        while True:
            bodies = _fitting(self._outbox[link.party][sent:])
            if bodies:
                await link.ask(Post(self.id, sent, bodies), Done)
                sent += len(bodies)
            elif self.is_over:
                return
            else:
                await self._changed.wait()

    async def _collect(self, link: Link) -> None:
        have = 0
        while True:
            mail = await link.ask(Fetch(self.id, have), Mail)
            self.post(link.party, have, mail.bodies)
            have += len(mail.bodies)
            if mail.is_over:
                return

    def _send(self, messages: Iterable[engine.Message]) -> None:
        for one in messages:
            for party in self.others if one.to is None else (one.to,):
                self._outbox[party].append(one.body)
        self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


async def conducted(run: Run[T], links: Sequence[Link]) -> T:
    """Take part to the end, carrying the mail of `links`. Raises CeremonyFailedError, or what a link raises.

    Those who fetch are told that it is over when our result is here; a caller that must put it somewhere first does that by itself.
    """
    phase = run._ceremony.phase
    try:
        async with asyncio.timeout(PATIENCE_S[phase]), asyncio.TaskGroup() as all_of_it:
            mail = [all_of_it.create_task(run.carry(link)) for link in links]
            result = await run.work()
            run.finish()
            await asyncio.gather(*mail)
            return result
    except TimeoutError:
        run.fail("a party stopped in the middle")
        raise CeremonyFailedError(phase, f"{phase} did not end in {PATIENCE_S[phase]:g} s; a party stopped in the middle") from None
    except BaseExceptionGroup as failures:
        run.fail("the ceremony broke off at another party")
        raise first_of(failures) from None


def first_of(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """Of several failures at once, one that says who is to blame; else the first."""
    found = [first_of(error) if isinstance(error, BaseExceptionGroup) else error for error in failures.exceptions]
    return next((error for error in found if isinstance(error, CeremonyFailedError)), found[0])


def execution_id(kind: str, group: bytes, key: bytes, nonces: Sequence[tuple[int, bytes]]) -> bytes:
    """32 bytes that every party had a part in, so that none of them has seen them before."""
    parts = [b"isthmus cosigner 1", kind.encode(), group, key, *(b"%d:%b" % (party, nonce) for party, nonce in sorted(nonces))]
    return hashlib.sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest()


def _fitting(bodies: Sequence[bytes]) -> tuple[bytes, ...]:
    """As many as one frame takes, at least one."""
    found: list[bytes] = []
    size = 0
    for body in bodies:
        size += len(body)
        if found and size > MAIL_BYTES_MAX:
            break
        found.append(body)
    return tuple(found)
