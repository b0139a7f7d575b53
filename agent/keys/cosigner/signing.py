"""A cosigner's half of signing: presignatures made with whoever asks, and signatures of what its own policy passes.

The order is what keeps it safe: known request, policy on the bytes, what windows have left, the presignature out of its pool, the
record on the disk, the signature. A refusal leaves the presignature where it is; everything after the record burns it.
"""

import asyncio
from collections.abc import Mapping

from agent import observe
from agent.domain.errors import SignerError
from agent.keys.bounds import DEADLINE_AHEAD_S, KeyPolicy
from agent.keys.cosigner.asked import Requests
from agent.keys.cosigner.audit import AuditLog, Broken, Refused, shortened
from agent.keys.cosigner.group import Group
from agent.keys.cosigner.link import PeerRefusedError
from agent.keys.cosigner.pool import Pool
from agent.keys.cosigner.run import PATIENCE_S, CeremonyFailedError, Run
from agent.keys.cosigner.wire import Partial, Sign, read_typed
from agent.keys.digest import keccak
from agent.keys.raw import read_transaction
from agent.keys.spent import Spent
from agent.keys.steps import Preimage, alone
from agent.keys.threshold import engine
from agent.ports import Clock

PRESIGN_AT_ONCE_MAX = 2  # with one party; each costs a thread and a second of a core
STRIKES_MAX = 2  # ceremonies in which a party was found to cheat; then it is not spoken to until a person has looked


class Signing:
    """A share that is in use."""

    __slots__ = ("_clock", "_group", "_log", "_policies", "_pools", "_requests", "_spent", "_strikes", "_working", "runs", "share")

    def __init__(
        self,
        share: engine.KeyShare,
        group: Group,
        policies: Mapping[int, KeyPolicy],
        spent: Spent | None,
        log: AuditLog,
        clock: Clock,
    ) -> None:
        """`clock` must be the chain's: what stays valid for longer than DEADLINE_AHEAD_S is refused."""
        self._clock = clock
        self.share, self._group, self._policies, self._spent, self._log = share, group, policies, spent, log
        self._requests = Requests(log)
        self._pools = {party: Pool() for party in range(share.parties) if party != share.party}
        self._strikes = dict.fromkeys(self._pools, 0)
        self._working: dict[asyncio.Task[None], int] = {}  # in the order in which they began
        self.runs: dict[bytes, Run[engine.Presignature]] = {}

    @property
    def chains(self) -> tuple[int, ...]:
        return tuple(self._policies)

    def check_trust(self, peer: int) -> None:
        """Raises SignerError when no ceremony may begin with this party."""
        if self._strikes[peer] >= STRIKES_MAX:
            raise SignerError(
                f"party {self._name(peer)} was found to cheat; a person must look at the audit log and restart this one"
            )

    def presign(self, peer: int, run_id: bytes) -> None:
        """Begin to make a presignature with this party, which carries the mail. Its oldest unfinished one makes room."""
        self.check_trust(peer)
        unfinished = [task for task, one in self._working.items() if one == peer]
        for task in unfinished[: len(unfinished) + 1 - PRESIGN_AT_ONCE_MAX]:
            task.cancel()
        run = Run(run_id, engine.presign(self.share, sorted((peer, self.share.party)), run_id))
        self.runs[run_id] = run
        task = asyncio.create_task(self._presign(peer, run))
        self._working[task] = peer
        task.add_done_callback(self._working.pop)

    def sign(self, peer: int, asked: Sign) -> Partial:
        """Our share of the signature. SignerError: refused. Without a suspension, so that no other request comes in between."""
        name = self._name(peer)
        try:
            known = self._requests.answered(name, asked)
            return Partial(known) if known is not None else self._sign(peer, name, asked)
        except SignerError as error:
            observe.signature_refused(name, str(error))
            self._log.append(Refused(name, asked.request.hex()[:64], shortened(str(error))))
            raise

    async def close(self) -> None:
        """Presignatures are gone afterwards."""
        for task in tuple(self._working):
            task.cancel()
        if self._working:
            await asyncio.wait(tuple(self._working))
        for pool in self._pools.values():
            pool.clear()

    def _sign(self, peer: int, name: str, asked: Sign) -> Partial:
        if len(asked.request) != 16 or len(asked.pid) != 32:
            raise SignerError("a request without an id or a presignature; nothing was signed")
        source = read_typed(asked.typed) if asked.kind == "typed" else read_transaction(asked.data)
        preimage = Preimage(asked.kind, asked.data, source)
        latest_s = self._clock.now_ns() // 1_000_000_000 + DEADLINE_AHEAD_S
        held = alone(preimage, self._policies, f"of party {self._name(self.share.party)}", latest_s, self._spent)
        presignature = self._pools[peer].take(asked.pid)
        if presignature is None:
            if held is not None:
                held.release()
            raise PeerRefusedError("gone", "that presignature is not here (any more); make another one")
        self._requests.take(name, asked, preimage.digest)
        try:
            partial = presignature.sign(asked.data).partial
        except engine.ThresholdError as error:
            raise SignerError(f"the engine refuses ({error}); nothing was signed") from None
        self._requests.give(name, asked, partial)
        observe.signature_given(name, asked.kind, keccak(asked.data).hex()[:16])
        return Partial(partial)

    async def _presign(self, peer: int, run: Run[engine.Presignature]) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S["presign"]):
                presignature = await run.work()
            self._pools[peer].put(presignature)
            run.finish()
            async with asyncio.timeout(PATIENCE_S["presign"]):
                await run.told()
        except CeremonyFailedError as error:
            self._strikes[peer] += bool(error.guilty)
            guilty = tuple(self._name(party) for party in error.guilty)
            self._log.append(Broken(error.phase, shortened(str(error)), guilty))
            observe.ceremony_failed(error.phase, str(error), ", ".join(guilty))
        except TimeoutError:
            observe.ceremony_failed("presign", f"party {self._name(peer)} stopped in the middle", "")
        finally:
            del self.runs[run.id]

    def _name(self, party: int) -> str:
        return self._group.members[party].name
