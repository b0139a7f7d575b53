"""The cosigner: one party of a shared key in a process of its own, which answers the other parties and nobody else.

Without a share it takes part in a set-up; with one it makes presignatures and signs what its own policy passes. Every answer is to
a party that TLS has named.
"""

import asyncio
import os
from collections import deque
from collections.abc import Mapping
from typing import Any

from agent.domain.errors import IsthmusError, SignerError
from agent.keys.cosigner.audit import AuditLog
from agent.keys.cosigner.group import Group
from agent.keys.cosigner.home import Home, account
from agent.keys.cosigner.run import Run, execution_id
from agent.keys.cosigner.setup import NONCES_MAX, Making
from agent.keys.cosigner.signing import Signing
from agent.keys.cosigner.wire import (
    NONCE_BYTES,
    PROTOCOL,
    About,
    Answer,
    Commit,
    Compare,
    Discard,
    Done,
    Fetch,
    Kind,
    Nonce,
    Post,
    Prepare,
    Propose,
    Request,
    Sign,
    Start,
    Who,
)
from agent.keys.threshold import engine

APPEAR_S = 5.0  # how long mail waits for a ceremony that the leader has announced to its sender before us


class Daemon:
    """What answers. `signing` is None until there is a share in use."""

    def __init__(self, home: Home, group: Group, ours: int, log: AuditLog, signing: Signing | None) -> None:
        self._home, self._group, self._ours, self._log = home, group, ours, log
        self._signing = signing
        self._making: Making | None = None
        self._prepared: engine.KeyShare | None = None
        if signing is None and not home.has_share() and home.vault.has("prepared"):
            self._prepared = home.share(group, "prepared")
        self._nonces: dict[tuple[int, Kind], deque[bytes]] = {}

    async def answer(self, peer: int, request: Request) -> Answer:
        """To one of the other parties. Raises SignerError, which is told to it."""
        try:
            return await self._answer(peer, request)
        except SignerError:
            raise
        except engine.ThresholdError as error:
            raise SignerError(f"the engine refuses: {error}") from None
        except IsthmusError as error:  # our own disk or password: told in its words, which hold no secret
            raise SignerError(str(error)) from None

    async def close(self) -> None:
        if self._making is not None:
            await self._making.close()
        if self._signing is not None:
            await self._signing.close()

    async def _answer(self, peer: int, request: Request) -> Answer:
        match request:
            case Who():
                return self._about()
            case Propose(kind=kind):
                return await self._propose(peer, kind)
            case Start():
                await self._start(peer, request)
            case Post(run=run_id, first=first, bodies=bodies):
                (await self._run(run_id)).post(peer, first, bodies)
            case Fetch(run=run_id, have=have):
                return await (await self._run(run_id)).fetch(peer, have)
            case Compare(fingerprint=fingerprint):
                return await self._made().compared(peer, fingerprint)
            case Prepare(fingerprint=fingerprint):
                await self._prepare(fingerprint)
            case Commit(fingerprint=fingerprint):
                self._commit(fingerprint)
            case Discard(fingerprint=fingerprint):
                self._discard(fingerprint)
            case Sign():
                return self._in_use().sign(peer, request)
        return Done()

    def _about(self) -> About:
        share = self._signing.share if self._signing is not None else self._prepared
        state = "ready" if self._home.has_share() else "prepared" if self._prepared is not None else "new"
        return About(
            PROTOCOL,
            self._group.id,
            "ready" if state == "ready" else "prepared" if state == "prepared" else "new",
            share.fingerprint if share is not None else b"",
            account(share) if share is not None else "",
            self._home.vault.has("primes"),
            self._signing.chains if self._signing is not None else (),
        )

    async def _propose(self, peer: int, kind: Kind) -> Nonce:
        if kind == "presign":
            self._in_use().check_trust(peer)
        elif self._home.has_share() or self._prepared is not None:
            raise SignerError("this party has a share already; use a home of its own for another key")
        elif kind == "keygen":
            if self._making is not None:  # a set-up that broke off, or another leader: the last one counts
                await self._making.close()
            self._making = Making(self._home, self._group, self._ours, self._log)
        nonce = os.urandom(NONCE_BYTES)
        self._nonces.setdefault((peer, kind), deque(maxlen=NONCES_MAX)).append(nonce)
        return Nonce(nonce)

    async def _start(self, peer: int, request: Start) -> None:
        nonces, ours = request.nonces, dict(request.nonces).get(self._ours, b"")
        proposed = self._nonces.get((peer, request.kind), deque())
        parties = [peer, self._ours] if request.kind == "presign" else list(range(len(self._group.members)))
        if ours not in proposed or [party for party, _ in nonces] != sorted(parties):
            raise SignerError("a ceremony that was not proposed, or for other parties; propose it anew")
        if any(len(nonce) != NONCE_BYTES for _, nonce in nonces):
            raise SignerError(f"a nonce has {NONCE_BYTES} bytes")
        proposed.remove(ours)
        if request.kind == "presign":
            signing = self._in_use()
            signing.presign(peer, execution_id("presign", self._group.id, signing.share.fingerprint, nonces))
            return
        making = self._made()
        await making.ended()
        making.begin(request.kind, nonces, peer)

    async def _run(self, run_id: bytes) -> Run[Any]:
        end = asyncio.get_running_loop().time() + APPEAR_S
        while True:
            for owner in (self._signing, self._making):
                runs: Mapping[bytes, Run[Any]] = owner.runs if owner is not None else {}
                if run_id in runs:
                    return runs[run_id]
            if self._making is None or asyncio.get_running_loop().time() > end:
                raise SignerError("there is no such ceremony here (any more); begin it anew")
            await asyncio.sleep(0.05)

    async def _prepare(self, fingerprint: bytes) -> None:
        making = self._made()
        await making.prepare(fingerprint)
        self._prepared = making.share

    def _commit(self, fingerprint: bytes) -> None:
        if self._prepared is None or self._prepared.fingerprint != fingerprint:
            raise SignerError("there is nothing here to commit; begin the set-up anew")
        if self._making is not None:
            self._making.commit()
        else:
            self._home.commit_share()
        self._prepared = None

    def _discard(self, fingerprint: bytes) -> None:
        if self._prepared is not None and self._prepared.fingerprint == fingerprint:
            self._home.vault.drop("prepared")
            self._prepared = None

    def _made(self) -> Making:
        if self._making is None:
            raise SignerError("no set-up is under way here; begin it anew")
        return self._making

    def _in_use(self) -> Signing:
        if self._signing is None:
            raise SignerError("this party has no share in use; set the key up, write its account into the settings and restart it")
        return self._signing
