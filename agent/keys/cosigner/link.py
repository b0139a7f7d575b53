"""Connections between parties: the end that dials and asks, and the end that listens and answers.

Whatever goes wrong on the way looks like an answer that did not come: it accuses nobody. Connections, requests at once, sizes and
times are bounded on both ends.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from agent import observe
from agent.domain.errors import SecretError, SignatureUnknownError, SignerError, SignerUnavailableError
from agent.keys.cosigner.group import Group
from agent.keys.cosigner.identity import Identity, shown, tls_contexts
from agent.keys.cosigner.wire import FRAME_BYTES_MAX, Answer, Answered, Asked, Denied, Request, pack, read_answered, read_asked

CONNECTIONS_MAX = 32
REQUESTS_AT_ONCE_MAX = 16  # of one connection; the next waits
DIAL_S = 3.0
LOOKS = 4  # turns of the loop from a socket that can be read to the end of our reading
FRAME_S = 10.0  # how long one frame may take to arrive once it has begun
ANSWER_S = 12.0

Ask = Callable[[int, Request], Awaitable[Answer]]  # who asks, what -> the answer; SignerError is told to the asker
Wanted = TypeVar("Wanted")


class PeerRefusedError(SignerError):
    """The other end read the request and said no. `why` as in `Denied`."""

    def __init__(self, why: str, reason: str) -> None:
        super().__init__(reason)
        self.why = why


class Link:
    """One connection to another party; made when it is first used, and again when it has broken."""

    __slots__ = ("_context", "_group", "_number", "_reading", "_turn", "_waiting", "_writer", "party")

    def __init__(self, identity: Identity, group: Group, ours: int, party: int) -> None:
        others = [one.der for at, one in enumerate(group.members) if at != ours]
        self._context = tls_contexts(identity, others)[1]
        self._group, self.party = group, party
        self._turn = asyncio.Lock()
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._number = 0

    @property
    def name(self) -> str:
        return self._group.members[self.party].name

    @property
    def is_up(self) -> bool:
        return self._writer is not None

    async def ask(self, request: Request, want: type[Wanted], patience_s: float = ANSWER_S) -> Wanted:
        """The answer, which is a `want`.

        Raises PeerRefusedError when the other says no, SignerUnavailableError when it was not asked, SignatureUnknownError when it
        was and the answer did not come.
        """
        writer = await self._connected()
        self._number += 1
        number = self._number
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            frame = pack(Asked(number, request))
            async with asyncio.timeout(patience_s):
                writer.write(frame)
                await writer.drain()
                answer = await waiting
        except (OSError, TimeoutError):
            raise SignatureUnknownError(f"party {self.name} was asked and did not answer; look at its log") from None
        finally:
            self._waiting.pop(number, None)
        if isinstance(answer, Denied):
            raise PeerRefusedError(answer.why, answer.reason)
        if not isinstance(answer, want):
            self._drop()
            raise SignerError(f"party {self.name} answers something else than it was asked; run one version at all parties")
        return answer

    async def close(self) -> None:
        reading = self._reading
        self._drop()
        if reading is not None:
            reading.cancel()
            await asyncio.wait([reading])

    async def _connected(self) -> asyncio.StreamWriter:
        async with self._turn:
            for _ in range(LOOKS if self._writer is not None else 0):
                await asyncio.sleep(0)  # the other end may have hung up, and nobody has looked since
            if self._writer is not None and not self._writer.is_closing():
                return self._writer
            self._drop()
            member = self._group.members[self.party]
            try:
                async with asyncio.timeout(DIAL_S):
                    reader, writer = await asyncio.open_connection(*member.address, ssl=self._context)
            except ssl.SSLError:
                raise SignerUnavailableError(
                    f"what answers at {member.at} is not party {member.name} of this group; compare the group files"
                ) from None
            except (OSError, TimeoutError):
                raise SignerUnavailableError(
                    f"party {member.name} does not answer at {member.at}; start it: isthmus cosigner serve"
                ) from None
            if shown(writer.get_extra_info("ssl_object")) != member.fingerprint:
                writer.transport.abort()
                raise SignerUnavailableError(
                    f"what answers at {member.at} is another party than {member.name}; correct the group file"
                )
            self._writer = writer
            self._reading = asyncio.create_task(self._read(reader, writer))
            return writer

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                answered = read_answered(await read_body(reader))
                waiting = self._waiting.get(answered.number)  # none: whoever asked has given it up
                if waiting is not None and not waiting.done():
                    waiting.set_result(answered.answer)
        except (OSError, asyncio.IncompleteReadError, TimeoutError, SignerError):
            pass  # the connection has no more to give, whatever the reason
        finally:
            if self._writer is writer:
                self._drop()
            else:
                writer.close()

    def _drop(self) -> None:
        writer, self._writer, self._reading = self._writer, None, None
        if writer is not None:
            writer.transport.abort()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(ConnectionResetError("the connection broke"))


async def read_body(reader: asyncio.StreamReader) -> bytes:
    """The next frame without its length, awaited without end; once begun, whole within FRAME_S. Raises SignerError if too long."""
    first = await reader.readexactly(1)
    async with asyncio.timeout(FRAME_S):
        size = int.from_bytes(first + await reader.readexactly(3), "big")
        if not 0 < size <= FRAME_BYTES_MAX:
            raise SignerError(f"a frame of {size} bytes; at most {FRAME_BYTES_MAX} are read")
        return await reader.readexactly(size)


@contextlib.asynccontextmanager
async def listening(identity: Identity, group: Group, ours: int, answer: Ask) -> AsyncIterator[None]:
    """Answer the other parties of the group at our address while the context is open. Raises SecretError when it is taken."""
    context, _ = tls_contexts(identity, [one.der for at, one in enumerate(group.members) if at != ours])
    open_now: set[asyncio.StreamWriter] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = group.party(shown(writer.get_extra_info("ssl_object")))
        open_now.add(writer)
        try:
            if peer is not None and peer != ours and len(open_now) <= CONNECTIONS_MAX:
                await _talk(peer, group.members[peer].name, answer, reader, writer)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            pass  # it left, or it stalled
        finally:
            open_now.discard(writer)
            writer.transport.abort()

    member = group.members[ours]
    try:
        server = await asyncio.start_server(talk, *member.address, ssl=context, ssl_handshake_timeout=DIAL_S)
    except OSError as error:
        raise SecretError(
            f"cannot listen at {member.at}: {error.strerror}; stop what is there, or correct the group file"
        ) from None
    try:
        yield
    finally:
        server.close()
        for writer in tuple(open_now):
            writer.transport.abort()


async def _talk(peer: int, name: str, answer: Ask, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    room, working = asyncio.Semaphore(REQUESTS_AT_ONCE_MAX), set[asyncio.Task[None]]()

    async def reply(asked: Asked) -> None:
        try:
            given = await answer(peer, asked.request)
        except PeerRefusedError as error:
            given = Denied("gone" if error.why == "gone" else "lost" if error.why == "lost" else "refused", str(error))
        except SignerError as error:
            given = Denied("refused", str(error))
        finally:
            room.release()
        with contextlib.suppress(OSError):
            writer.write(pack(Answered(asked.number, given)))

    try:
        while True:
            asked = read_asked(await read_body(reader))
            await room.acquire()
            task = asyncio.create_task(reply(asked))
            working.add(task)
            task.add_done_callback(working.discard)
            await writer.drain()
    except SignerError as error:
        observe.signature_refused(name, str(error))
    finally:
        for task in working:
            task.cancel()
