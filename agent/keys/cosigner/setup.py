"""How a key comes to be: each party makes its share with the others, compares the result with all of them, and only then keeps it.

One party leads: it says when. It learns nothing that the others do not, and none of them takes its word for what another said. A
key is used when every party has written its share and read it back (prepared) and was told so (committed); a set-up that broke
off in between is ended the one way or the other by the next.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

import msgspec

from agent import observe
from agent.domain.errors import IsthmusError, SignerError, SignerUnavailableError
from agent.keys.cosigner.audit import AuditLog, Broken, KeyMade, shortened
from agent.keys.cosigner.group import THRESHOLD, Group
from agent.keys.cosigner.home import Home, account
from agent.keys.cosigner.link import Link
from agent.keys.cosigner.run import CeremonyFailedError, Run, conducted, execution_id
from agent.keys.cosigner.wire import (
    NONCE_BYTES,
    PROTOCOL,
    About,
    Commit,
    Compare,
    Discard,
    Done,
    Kind,
    Nonce,
    Prepare,
    Propose,
    Same,
    Start,
    Who,
)
from agent.keys.threshold import engine

COMPARE_S = 60.0  # until every party has made its share and asked
NONCES_MAX = 16  # proposals of one party that wait for their start

Tell = Callable[[str], None]


class Making:
    """One party's side of one set-up, whoever leads it."""

    def __init__(self, home: Home, group: Group, ours: int, log: AuditLog) -> None:
        self._home, self._group, self._ours, self._log = home, group, ours, log
        self.links = {at: Link(home.identity, group, ours, at) for at in range(len(group.members)) if at != ours}
        self.runs: dict[bytes, Run[Any]] = {}
        self._core: engine.Core | None = None
        self._share: engine.KeyShare | None = None
        self._made, self._equal = asyncio.Event(), asyncio.Event()
        self._same: set[int] = set()
        self._task: asyncio.Task[None] | None = None

    @property
    def share(self) -> engine.KeyShare:
        """Raises SignerError before it is made."""
        if self._share is None:
            raise SignerError("there is no share yet; begin the set-up anew")
        return self._share

    def begin(self, kind: Kind, nonces: Sequence[tuple[int, bytes]], leader: int) -> None:
        """Take part in key generation or in `aux`, in the background. See `ended`."""
        self._task = asyncio.create_task(self._follow(kind, nonces, leader))

    async def ended(self) -> None:
        """Of what was begun last. Raises what it failed with."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def take_part(self, kind: Kind, nonces: Sequence[tuple[int, bytes]], leader: int) -> None:
        """To the end. Raises CeremonyFailedError; whoever cheats here is told to the audit log at once."""
        run_id = execution_id(kind, self._group.id, b"", nonces)
        parties = len(self._group.members)
        try:
            if kind == "keygen":
                self._core = await self._run(run_id, engine.keygen(self._ours, parties, THRESHOLD, run_id), leader)
                return
            if self._core is None:
                raise SignerError("`aux` before a key was generated; begin the set-up anew")
            primes = await asyncio.to_thread(self._home.take_primes)
            aux = await self._run(run_id, engine.aux(self._ours, parties, run_id, primes), leader)
            self._share, self._core = engine.KeyShare.assemble(self._core, aux), None
            self._made.set()
        except CeremonyFailedError as error:
            guilty = tuple(self._group.members[party].name for party in error.guilty)
            self._log.append(Broken(error.phase, shortened(str(error)), guilty))
            raise

    async def compared(self, peer: int, fingerprint: bytes) -> Same:
        """A party told what the key is to it: what it is to us, when we have it. Raises SignerError when they differ."""
        await self._waited(self._made, "this party has not made its share")
        self._note(peer, fingerprint)
        return Same(self.share.fingerprint)

    async def compare_all(self, peers: Sequence[int]) -> None:
        """Ask these parties what the key is to them. Raises SignerError when it is not the same to all."""
        for peer in peers:
            same = await self.links[peer].ask(Compare(self.share.fingerprint), Same, COMPARE_S)
            self._note(peer, same.fingerprint)

    async def prepare(self, fingerprint: bytes) -> None:
        """Write the share, once every other party has compared equal. Raises SignerError if the leader's key is another."""
        await self._waited(self._equal, "not every party has compared the new key")
        if self.share.fingerprint != fingerprint:
            raise SignerError("this party has made another key; nobody keeps it")
        await asyncio.to_thread(self._home.prepare_share, self.share, self._group)

    def commit(self) -> None:
        self._home.commit_share()
        self._log.append(KeyMade(account(self.share), self.share.fingerprint.hex()))

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        for link in self.links.values():
            await link.close()

    async def _run(self, run_id: bytes, ceremony: "engine.Ceremony[Any]", leader: int) -> Any:
        run = self.runs[run_id] = Run(run_id, ceremony)
        return await conducted(run, [self.links[peer] for peer in self.dialled(leader)])

    def dialled(self, leader: int) -> list[int]:
        """Whom we dial: the leader everybody, the others those after them; each pair is connected once."""
        return [peer for peer in self.links if self._ours == leader or (peer != leader and peer > self._ours)]

    async def _follow(self, kind: Kind, nonces: Sequence[tuple[int, bytes]], leader: int) -> None:
        try:
            await self.take_part(kind, nonces, leader)
            if kind == "aux":
                await self.compare_all(self.dialled(leader))
        except IsthmusError as error:  # whoever leads hears of it, or waits in vain and says so
            observe.ceremony_failed(kind, str(error), "")

    def _note(self, peer: int, fingerprint: bytes) -> None:
        if fingerprint != self.share.fingerprint:
            raise SignerError(
                f"the new key is another one to party {self._group.members[peer].name}; nobody keeps it, find out why"
            )
        self._same.add(peer)
        if len(self._same) == len(self.links):
            self._equal.set()

    async def _waited(self, event: asyncio.Event, reason: str) -> None:
        try:
            async with asyncio.timeout(COMPARE_S):
                await event.wait()
        except TimeoutError:
            raise SignerUnavailableError(f"{reason}; begin the set-up anew") from None


class Led(msgspec.Struct, frozen=True):
    """What a set-up came to. Seconds, as this machine took them."""

    address: str
    fingerprint: str
    keygen_s: float
    aux_s: float


async def lead(making: Making, home: Home, group: Group, ours: int, tell: Tell) -> Led:
    """Make a key with every other party, all of which are up, or end a set-up that broke off. Raises SignerError."""
    abouts = {peer: await _about(link, group) for peer, link in making.links.items()}
    if finished := await _finish(making, home, group, abouts):
        return finished
    for peer, about in abouts.items():
        if about.state != "new":
            raise SignerError(f"party {group.members[peer].name} has a share already; use a home of its own for another key")
        if not about.has_primes:
            raise SignerError(f"party {group.members[peer].name} has no primes; there: isthmus cosigner primes")
    clock = asyncio.get_running_loop().time
    begun = clock()
    await _ceremony(making, "keygen", ours)
    keygen_s = clock() - begun
    tell(f"key generated in {keygen_s:.1f} s; now the auxiliary data, half a minute of every party")
    begun = clock()
    await _ceremony(making, "aux", ours)
    aux_s = clock() - begun
    tell(f"auxiliary data in {aux_s:.1f} s; comparing with every party")
    mark = making.share.fingerprint
    await making.compare_all(list(making.links))
    await asyncio.gather(making.prepare(mark), *(link.ask(Prepare(mark), Done, 2 * COMPARE_S) for link in making.links.values()))
    for link in making.links.values():
        await link.ask(Commit(mark), Done)
    making.commit()
    return Led(account(making.share), mark.hex(), keygen_s, aux_s)


async def _about(link: Link, group: Group) -> About:
    found = await link.ask(Who(PROTOCOL, group.id), About)
    if found.protocol != PROTOCOL or found.group != group.id:
        raise SignerError(f"party {link.name} has another group file; give every party the same one")
    return found


async def _finish(making: Making, home: Home, group: Group, abouts: dict[int, About]) -> Led | None:
    """A set-up that broke off: committed everywhere if one party uses the key already, else forgotten everywhere."""
    ours = home.share(group, "prepared") if home.vault.has("prepared") else None
    committed = {about.fingerprint for about in abouts.values() if about.state == "ready"}
    if committed and ours is not None and {ours.fingerprint} == committed:
        for peer, about in abouts.items():
            if about.state == "prepared":
                await making.links[peer].ask(Commit(ours.fingerprint), Done)
        home.commit_share()
        return Led(account(ours), ours.fingerprint.hex(), 0.0, 0.0)
    for peer, about in abouts.items():
        if about.state == "prepared" and not committed:
            await making.links[peer].ask(Discard(about.fingerprint), Done)
            abouts[peer] = msgspec.structs.replace(about, state="new")
    if ours is not None and not committed:
        home.vault.drop("prepared")
    return None


async def _ceremony(making: Making, kind: Kind, ours: int) -> None:
    """Nonces from all, then the start to all, and our own part."""
    nonces = [(ours, os.urandom(NONCE_BYTES))]
    for peer, link in making.links.items():
        nonces.append((peer, (await link.ask(Propose(kind), Nonce)).nonce))
    start = Start(kind, tuple(sorted(nonces)))
    await gathered([link.ask(start, Done) for link in making.links.values()])
    await making.take_part(kind, start.nonces, ours)


async def gathered(work: Sequence[Coroutine[Any, Any, Any]]) -> None:
    """All of it at once; of several failures the first is raised when all have ended."""
    for found in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(found, BaseException):
            raise found


@contextlib.asynccontextmanager
async def made_with(home: Home, group: Group, ours: int, log: AuditLog) -> AsyncIterator[Making]:
    """A `Making` that is closed in the end."""
    making = Making(home, group, ours, log)
    try:
        yield making
    finally:
        await making.close()
