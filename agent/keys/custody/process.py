"""`kind = "process"`: the key is in a process of its own (`isthmus signer`) on this machine, with its own policy."""

import asyncio
from pathlib import Path
from typing import Literal

from agent.domain.errors import IsthmusError, SignerError, SignerUnavailableError
from agent.domain.plan import TypedData
from agent.keys.frames import PROTOCOL, Ask, Denied, Frame, Given, Hello, check_peer, check_socket, pack, read_frame
from agent.keys.remote import Key
from agent.keys.secrets import Secrets
from agent.keys.section import Section
from agent.keys.steps import Preimage
from agent.ports import Custody

CUSTODY = Custody("process", "warm", "milliseconds")
ANSWER_S = 4.0  # less than the patience of a RemoteSigner, so that the reason is told

_Link = tuple[asyncio.StreamReader, asyncio.StreamWriter, Hello]


class Config(Section):
    """`socket`: where the signer listens, relative to the settings file."""

    kind: Literal["process"] = "process"
    socket: str


async def open_key(name: str, config: Config, secrets: Secrets) -> Key:
    """Raises SignerUnavailableError when no signer answers, SignerError when it holds another key."""
    key = ProcessKey(name, config.address, secrets.path(config.socket))
    await key.hello()
    return key


class ProcessKey:
    """One connection, one request at a time. A signer that was restarted in between is found again."""

    __slots__ = ("_asked", "_link", "_path", "_turn", "address", "key_id")

    def __init__(self, name: str, address: str, path: Path) -> None:
        self.key_id, self.address, self._path = name, address, path
        self._turn = asyncio.Lock()
        self._link: _Link | None = None
        self._asked = 0

    @property
    def custody(self) -> Custody:
        return CUSTODY

    async def signature(self, preimage: Preimage) -> bytes:
        """As `Key`. The signature over the same bytes is always the same, so to ask again is harmless."""
        async with self._turn:
            was_open = self._link is not None
            try:
                return await self._ask(preimage)
            except SignerUnavailableError:
                if not was_open:
                    raise
            return await self._ask(preimage)  # the connection was an old one: the signer may be a new one

    async def health(self) -> str:
        """Asked over a connection of its own, so that a request under way is not disturbed."""
        try:
            await self.hello()
        except IsthmusError as error:
            return str(error)
        return ""

    async def hello(self) -> Hello:
        """Who answers; see `open_key`."""
        _, writer, hello = await self._connect()
        writer.close()
        return hello

    async def close(self) -> None:
        self._drop()

    async def _ask(self, preimage: Preimage) -> bytes:
        try:
            if self._link is None:
                self._link, self._asked = await self._connect(), 0
            reader, writer, hello = self._link
            self._asked += 1
            typed = preimage.source if isinstance(preimage.source, TypedData) else None
            writer.write(pack(Ask(hello.greeting, self._asked, preimage.kind, preimage.data, typed)))
            return _given(await self._read(reader), self._asked)
        except _DeniedError as refusal:  # an answer like any other: the connection stays
            raise SignerError(str(refusal)) from None
        except BaseException:  # also when we were cancelled: the answer to this must never be read as that to the next
            self._drop()
            raise

    async def _connect(self) -> _Link:
        writer = None
        try:
            check_socket(self._path)
            reader, writer = await asyncio.open_unix_connection(self._path)
            check_peer(writer)
            hello = await self._read(reader)
            self._check(hello)
        except BaseException as error:
            if writer is not None:
                writer.close()
            if isinstance(error, OSError):
                raise SignerUnavailableError(f"no signer answers at {self._path}; start it: isthmus signer") from None
            raise
        assert isinstance(hello, Hello)
        return reader, writer, hello

    def _check(self, hello: Frame) -> None:
        if isinstance(hello, Denied):
            raise SignerError(f"the signer at {self._path}: {hello.reason}")
        if not isinstance(hello, Hello) or hello.protocol != PROTOCOL:
            raise SignerError(f"what answers at {self._path} is no signer of this version; start it anew: isthmus signer")
        if hello.address != self.address:
            raise SignerError(f"the signer at {self._path} holds {hello.address}, wallet.address is {self.address}; correct one")

    async def _read(self, reader: asyncio.StreamReader) -> Frame:
        try:
            async with asyncio.timeout(ANSWER_S):
                return await read_frame(reader, ANSWER_S)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            raise SignerUnavailableError(
                f"the signer at {self._path} left without an answer; nothing was signed that anybody has, look at its log"
            ) from None

    def _drop(self) -> None:
        if self._link is not None:
            self._link[1].close()
            self._link = None


class _DeniedError(Exception):
    """The signer read the request and said no."""


def _given(frame: Frame, number: int) -> bytes:
    if isinstance(frame, Given) and frame.number == number:
        return frame.signature
    if isinstance(frame, Denied) and frame.number == number:
        raise _DeniedError(f"the signer process refuses: {frame.reason}")
    raise SignerError(
        f"the signer process refuses: {frame.reason}" if isinstance(frame, Denied) else "the signer answered out of turn"
    )
