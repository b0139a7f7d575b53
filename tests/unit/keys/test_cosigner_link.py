"""Parties on the wire, without a key: who is answered, many requests at once, and what a broken connection looks like."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.errors import SecretError, SignatureUnknownError, SignerError, SignerUnavailableError
from agent.keys.cosigner.group import Group, Member, entry, group_of
from agent.keys.cosigner.identity import Identity, new_identity
from agent.keys.cosigner.link import Link, PeerRefusedError, listening
from agent.keys.cosigner.wire import (
    FRAME_BYTES_MAX,
    About,
    Answer,
    Asked,
    Done,
    Fetch,
    Mail,
    Nonce,
    Propose,
    Request,
    Same,
    Who,
    pack,
    read_answered,
    read_asked,
    read_typed,
)

WHO = Who(1, b"g")
IDENTITIES = [new_identity(name) for name in ("alice", "bob", "carol")]


def group(*identities: Identity) -> Group:
    ports = free_ports(len(identities))
    text = [entry(f"p{at}", f"127.0.0.1:{ports[at]}", one.certificate) for at, one in enumerate(identities)]
    found = [dict(line.split(" = ", 1) for line in one.splitlines()[1:]) for one in text]
    return group_of({"name": "g", "party": [{key: value.strip('"') for key, value in one.items()} for one in found]}, "test")


def free_ports(count: int) -> list[int]:
    """Held together until all are known, so that none is found twice."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = [int(server.getsockname()[1]) for server in held]
    for server in held:
        server.close()
    return found


class Answering:
    """Party 1, which notes who asks."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, Request]] = []
        self.go, self._more = asyncio.Event(), asyncio.Event()

    async def hears(self, count: int) -> None:
        while len(self.heard) < count:
            self._more.clear()
            await self._more.wait()

    async def answer(self, peer: int, request: Request) -> Answer:
        self.heard.append((peer, request))
        self._more.set()
        match request:
            case Fetch(have=have):
                await self.go.wait()
                return Mail((b"%d" % have,), is_over=False)
            case Propose(kind="aux"):
                raise SignerError("policy: no")
            case Propose(kind="presign"):
                raise PeerRefusedError("gone", "not here")
        return Nonce(b"n" * 16)


@contextlib.asynccontextmanager
async def pair(party: int = 0) -> AsyncIterator[tuple[Answering, Link, Group]]:
    found, far = group(*IDENTITIES), Answering()
    async with listening(IDENTITIES[1], found, 1, far.answer):
        link = Link(IDENTITIES[party], found, party, 1)
        yield far, link, found
        await link.close()


@pytest.mark.parametrize("party", [0, 2])
async def test_the_other_end_is_told_by_tls_who_asks(party: int) -> None:
    async with pair(party) as (far, link, _):
        assert await link.ask(WHO, Nonce) == Nonce(b"n" * 16)
        assert far.heard == [(party, WHO)]


async def test_requests_do_not_wait_for_each_other() -> None:
    async with pair() as (far, link, _):
        slow = [asyncio.create_task(link.ask(Fetch(b"r", have), Mail)) for have in range(5)]
        assert await link.ask(WHO, Nonce)
        far.go.set()
        assert [one.bodies for one in await asyncio.gather(*slow)] == [(b"%d" % have,) for have in range(5)]


async def test_more_at_once_than_are_taken_wait_their_turn() -> None:
    async with pair() as (far, link, _):
        slow = [asyncio.create_task(link.ask(Fetch(b"r", have), Mail)) for have in range(40)]
        await far.hears(16)
        for _ in range(200):
            await asyncio.sleep(0)
        assert len(far.heard) == 16
        far.go.set()
        assert len(await asyncio.gather(*slow)) == 40


async def test_a_refusal_is_told_with_its_kind() -> None:
    async with pair() as (_, link, _):
        for kind, why in (("aux", "refused"), ("presign", "gone")):
            with pytest.raises(PeerRefusedError) as caught:
                await link.ask(Propose(kind), Nonce)  # type: ignore[arg-type]
            assert caught.value.why == why
        assert await link.ask(WHO, Nonce), "the connection stays"


async def test_what_was_given_up_is_not_taken_for_the_next_answer() -> None:
    async with pair() as (far, link, _):
        given_up = asyncio.create_task(link.ask(Fetch(b"r", 7), Mail))
        await far.hears(1)
        given_up.cancel()
        await asyncio.wait([given_up])
        far.go.set()
        assert await link.ask(Fetch(b"r", 8), Mail) == Mail((b"8",), is_over=False)


async def test_an_answer_of_another_kind_is_none() -> None:
    async with pair() as (_, link, _):
        with pytest.raises(SignerError, match="something else"):
            await link.ask(WHO, Same)


async def test_an_answer_that_does_not_come_is_unknown_and_nobody_there_is_unavailable() -> None:
    found, far = group(*IDENTITIES), Answering()
    link = Link(IDENTITIES[0], found, 0, 1)
    with pytest.raises(SignerUnavailableError, match="does not answer"):
        await link.ask(WHO, Nonce)
    async with listening(IDENTITIES[1], found, 1, far.answer):
        with pytest.raises(SignatureUnknownError):
            await link.ask(Fetch(b"r", 0), Mail, 0.05)
        waiting = asyncio.create_task(link.ask(Fetch(b"r", 0), Mail))
        await far.hears(2)
    with pytest.raises(SignatureUnknownError):
        await waiting
    with pytest.raises(SignerUnavailableError):
        await link.ask(WHO, Nonce)
    async with listening(IDENTITIES[1], found, 1, far.answer):
        assert await link.ask(WHO, Nonce), "found again"
    await link.close()


@pytest.mark.parametrize("who", ["stranger asks", "stranger answers", "one of the group answers for another"])
async def test_only_the_certificates_of_the_group_count(who: str) -> None:
    found, far, stranger = group(*IDENTITIES), Answering(), new_identity("p1")
    answers = {"stranger asks": IDENTITIES[1], "stranger answers": stranger}.get(who, IDENTITIES[2])
    async with listening(answers, found, 1, far.answer):
        link = Link(stranger if who == "stranger asks" else IDENTITIES[0], found, 0, 1)
        with pytest.raises((SignerUnavailableError, SignatureUnknownError)):
            await link.ask(WHO, Nonce)
        await link.close()
    assert far.heard == []


async def test_plain_text_and_older_tls_are_not_answered() -> None:
    import ssl

    async with pair() as (far, _, found):
        reader, writer = await asyncio.open_connection(*found.members[1].address)
        writer.write(pack(Asked(1, WHO)))
        assert not await reader.read()
        writer.close()
        older = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        older.check_hostname, older.verify_mode = False, ssl.CERT_NONE
        older.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(OSError):
            await asyncio.open_connection(*found.members[1].address, ssl=older)
        assert far.heard == []


async def test_an_address_that_is_taken_is_told() -> None:
    async with pair() as (far, _, found):
        with pytest.raises(SecretError, match="cannot listen"):
            async with listening(IDENTITIES[1], found, 1, far.answer):
                pass


@given(noise=st.binary(max_size=300))
def test_noise_is_no_frame(noise: bytes) -> None:
    for read in (read_asked, read_answered, read_typed):
        with pytest.raises(SignerError):
            read(noise)


def test_frames_are_bounded() -> None:
    with pytest.raises(SignerError, match="more than a party takes"):
        pack(Asked(1, Who(1, bytes(FRAME_BYTES_MAX))))


def test_nothing_asks_for_a_hash() -> None:
    """Of all requests one signs, and that one carries the bytes."""
    fields: dict[str, Any] = {one.__name__: one.__struct_fields__ for one in Request.__args__}
    assert [name for name, names in fields.items() if "digest" in names or "hash" in names] == []
    assert fields["Sign"] == ("request", "pid", "kind", "data", "typed")
    assert Done() == Done()
    assert About.__struct_fields__[0] == "protocol"
    assert Member.__struct_fields__[0] == "name"
