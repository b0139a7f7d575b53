"""The signer process: the key is in no other address space, and what asks for a signature cannot read it.

It decodes each request itself and applies its own policy to the bytes, whatever the agent thought of them. It answers processes of
its own user alone, and it has no way to sign a bare hash. Its log says what it signed and what it refused.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from agent import observe
from agent.domain.errors import SecretError, SignerError
from agent.keys.digest import keccak
from agent.keys.frames import PATH_BYTES_MAX, PROTOCOL, Ask, Denied, Frame, Given, Hello, check_peer, check_socket, pack, read_frame
from agent.keys.local import LocalSigner
from agent.keys.memory import Hardening
from agent.keys.raw import read_transaction
from agent.keys.steps import Preimage

CLIENTS_MAX = 16
FRAME_S = 5.0  # how long one frame may take to arrive once it has begun


@contextlib.asynccontextmanager
async def serve(signer: LocalSigner, path: Path, granted: Hardening, chains: Sequence[int]) -> AsyncIterator[None]:
    """Answer at the socket `path` while the context is open. Raises SecretError when it cannot be had for us alone."""
    await _make_room(path)
    open_now: set[asyncio.StreamWriter] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_now.add(writer)
        try:
            if len(open_now) <= CLIENTS_MAX:
                greeting = secrets.token_hex(16)
                hello = Hello(
                    PROTOCOL, greeting, signer.key_id, signer.address, tuple(chains), signer.is_locked, granted.undumpable
                )
                await _talk(signer, hello, reader, writer)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            pass  # it left, or it stalled
        finally:
            open_now.discard(writer)
            writer.close()

    server = await asyncio.start_unix_server(talk, path)
    try:
        _close_to_others(path)
        yield
    finally:
        server.close()
        for writer in tuple(open_now):
            writer.close()
        _remove(path)


async def _make_room(path: Path) -> None:
    """A folder of our own, and no other signer in it; the socket that a crash left behind goes."""
    if len(str(path).encode()) > PATH_BYTES_MAX:
        raise SecretError(f"{path} is too long for a socket; name one with at most {PATH_BYTES_MAX} bytes")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _, writer = await asyncio.open_unix_connection(path)
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        _remove(path)
        return
    except OSError as error:
        raise SecretError(f"cannot make the socket {path}: {error.strerror}; name another one") from None
    writer.close()
    raise SecretError(f"a signer is answering at {path} already; stop it, or name another socket")


def _close_to_others(path: Path) -> None:
    path.chmod(0o600)
    check_socket(path)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


async def _talk(signer: LocalSigner, hello: Hello, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        check_peer(writer)
        writer.write(pack(hello))
        number = 0
        while True:
            asked = _fitting(await read_frame(reader, FRAME_S), hello.greeting, number + 1)
            number = asked.number
            writer.write(pack(_answer(signer, asked)))
            await writer.drain()
    except SignerError as error:
        observe.signature_refused(signer.key_id, str(error))
        writer.write(pack(Denied(0, str(error))))
        await writer.drain()


def _fitting(frame: Frame, greeting: str, number: int) -> Ask:
    if not isinstance(frame, Ask):
        raise SignerError("a frame that asks for nothing")
    if not secrets.compare_digest(frame.greeting.encode(), greeting.encode()) or frame.number != number:
        raise SignerError("a request that was made before, or for another connection; nothing was signed")
    return frame


def _answer(signer: LocalSigner, asked: Ask) -> Given | Denied:
    try:
        source = read_transaction(asked.data) if asked.typed is None else asked.typed
        signature = signer.sign_preimage(Preimage(asked.kind, asked.data, source))
    except SignerError as error:
        observe.signature_refused(signer.key_id, str(error))
        return Denied(asked.number, str(error))
    observe.signature_given(signer.key_id, asked.kind, keccak(asked.data).hex()[:16])
    return Given(asked.number, signature)
