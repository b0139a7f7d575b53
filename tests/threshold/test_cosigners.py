"""Three parties, two of them real daemons: who signs with whom, what they refuse, what a restart forgets and what it does not."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cli_kit import isthmus
from cosigner_kit import PRIMES, TOKEN, open_group
from eth_abi.abi import encode
from parties import engine
from test_tampering import NUMBER

from agent.domain.errors import SecretError, SignatureUnknownError, SignerError, SignerUnavailableError
from agent.keys.cosigner.audit import AuditLog, Broken, Refused, Taken, read_audit
from agent.keys.cosigner.group import Group
from agent.keys.cosigner.home import Home
from agent.keys.cosigner.identity import new_identity
from agent.keys.cosigner.link import Link, PeerRefusedError
from agent.keys.cosigner.partner import Partner
from agent.keys.cosigner.run import execution_id
from agent.keys.cosigner.setup import lead, made_with
from agent.keys.cosigner.wire import About, Done, Fetch, Mail, Nonce, Partial, Post, Propose, Sign, Start, Who
from agent.keys.custody import mpc
from agent.keys.digest import Transaction, address_bytes, keccak, transaction_fields, transaction_preimage
from agent.keys.remote import PATIENCE_S, recovered
from agent.keys.secrets import Secret, Secrets
from agent.keys.steps import Preimage
from agent.simulation.cosigners import CosignerGroup, SharedKey, wallet_settings

pytestmark = [pytest.mark.xdist_group("threshold"), pytest.mark.timeout(300)]

PERMIT2 = "0x000000000022D473030F116dDEE9F6B43aC78BA3"


class Box(NamedTuple):
    """The group, its key, and our own party's home, open."""

    daemons: CosignerGroup
    key: SharedKey
    home: Home
    group: Group
    share: engine.KeyShare


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    with open_group() as (daemons, key):
        home = Home(daemons.home("agent"), password(daemons, "agent"))
        group, _ = home.group()
        yield Box(daemons, key, home, group, home.share(group))
        home.close()


def password(daemons: CosignerGroup, name: str) -> Secret:
    return Secret(Path(daemons.password(name).removeprefix("file:")).read_text(encoding="utf-8"))


def approval(nonce: int, amount: int = 5) -> Preimage:
    data = bytes.fromhex("095ea7b3") + encode(["address", "uint256"], [PERMIT2, amount])
    tx = Transaction(31337, nonce, 1, 10**9, 60_000, address_bytes(TOKEN), 0, data)
    return Preimage("transaction", transaction_preimage(transaction_fields(tx)), tx)


@contextlib.asynccontextmanager
async def opened(box: Box, *cosigners: str, party: str = "agent", pool: int = 1) -> AsyncIterator[Any]:
    """The key as the agent opens it, from the home of any party."""
    found = wallet_settings(box.key) | {"home": str(box.daemons.home(party)), "password": box.daemons.password(party)}
    config = mpc.Config.model_validate({**found, "cosigners": cosigners, "pool": pool})
    key = await mpc.open_key("far", config, Secrets(Path("/")))
    try:
        yield key
    finally:
        await key.close()


@contextlib.asynccontextmanager
async def partnered(box: Box, party: int = 1) -> AsyncIterator[tuple[Partner, Link]]:
    """Our side of one pair, and a connection on which a test may say what it likes."""
    partner = Partner(box.home.identity, box.group, box.share, party, 4)
    link = Link(box.home.identity, box.group, 0, party)
    try:
        yield partner, link
    finally:
        await partner.close()
        await link.close()


def asked(pid: bytes, preimage: Preimage) -> Sign:
    return Sign(os.urandom(16), pid, preimage.kind, preimage.data, b"")


def entries(box: Box, name: str) -> list[Any]:
    return [entry for _, _, entry in read_audit(box.daemons.home(name) / "audit.jsonl")]


# -- who signs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("party", "cosigner"), [("agent", "first"), ("agent", "second"), ("second", "first")])
async def test_each_pair_signs(box: Box, party: str, cosigner: str) -> None:
    """The agent's home is one of three: two cosigners can move everything away when the agent is lost."""
    async with opened(box, cosigner, party=party) as key:
        wanted = approval(1)
        assert recovered(wanted.digest, await key.signature(wanted)) == box.key.address
    assert any(isinstance(entry, Taken) and entry.peer == party for entry in entries(box, cosigner))


async def test_a_party_that_is_down_is_not_missed(box: Box) -> None:
    box.daemons.kill("first")
    try:
        async with opened(box) as key:
            wanted = approval(2)
            assert recovered(wanted.digest, await key.signature(wanted)) == box.key.address
    finally:
        box.daemons.start("first")


async def test_a_party_that_hangs_holds_nobody_up_for_long(box: Box) -> None:
    """It was asked and may have signed its half, which is nothing without ours: the other one signs, within an agent's patience."""
    async with opened(box, "first", "second", pool=0) as key:
        for partner in key._partners:
            await partner.warm(1)
        os.kill(box.daemons.pid("first"), signal.SIGSTOP)
        try:
            wanted = approval(50)
            async with asyncio.timeout(PATIENCE_S):
                assert recovered(wanted.digest, await key.signature(wanted)) == box.key.address
        finally:
            os.kill(box.daemons.pid("first"), signal.SIGCONT)


async def test_ceremonies_that_were_left_unfinished_make_room(box: Box) -> None:
    """An agent that is killed again and again does not use its cosigner up."""
    async with partnered(box) as (partner, link):
        for _ in range(3):
            theirs = await link.ask(Propose("presign"), Nonce)
            await link.ask(Start("presign", ((0, os.urandom(16)), (1, theirs.nonce))), Done)
        await partner.warm(1)


async def test_a_presignature_is_made_to_its_end_when_whoever_waits_gives_up(box: Box) -> None:
    async with opened(box, "first", pool=0) as key:
        given_up = asyncio.create_task(key.signature(approval(60)))
        await asyncio.wait([given_up], timeout=0.2)
        given_up.cancel()
        await asyncio.wait([given_up])
        assert key.ready == 0
        await key.warm(1)
        assert key.ready == 1, "the one that was begun, and no second one"


# -- what is refused ---------------------------------------------------------------------------------------------------


async def test_a_cosigner_refuses_by_its_own_policy_and_is_not_asked_round(box: Box) -> None:
    """The agent's policy is left out here, as a thief of its machine would."""
    before = len(entries(box, "second"))
    async with opened(box, "first", "second", pool=0) as key:
        with pytest.raises(SignerError, match="party first refuses: policy: ") as caught:
            await key.signature(approval(3, 2**256 - 1))
        assert not isinstance(caught.value, SignerUnavailableError | SignatureUnknownError)
    last = entries(box, "first")[-1]
    assert isinstance(last, Refused)
    assert last.peer == "agent"
    assert "policy" in last.reason
    assert len(entries(box, "second")) == before


async def test_a_replayed_request_gets_the_same_answer_and_nothing_is_signed_twice(box: Box) -> None:
    async with partnered(box) as (partner, link):
        await partner.warm(1)
        mine = partner.pool.take_oldest()
        assert mine is not None
        wanted = approval(4)
        request = asked(mine.execution_id, wanted)
        answer = await link.ask(request, Partial)
        assert await link.ask(request, Partial) == answer
        with pytest.raises(PeerRefusedError, match="under the id of another"):
            await link.ask(Sign(request.request, request.pid, "transaction", approval(5).data, b""), Partial)
        with pytest.raises(PeerRefusedError, match="used before"):
            await link.ask(asked(mine.execution_id, wanted), Partial)
        box.daemons.kill("first")
        box.daemons.start("first")
        assert await link.ask(request, Partial) == answer, "it is remembered across a power cut"
        with pytest.raises(PeerRefusedError, match="used before"):
            await link.ask(asked(mine.execution_id, approval(6)), Partial)
        signature = mine.sign(wanted.data).combine({1: answer.partial})
        assert recovered(wanted.digest, signature[:64] + bytes((signature[64] + 27,))) == box.key.address
    taken = [entry.pid for entry in entries(box, "first") if isinstance(entry, Taken)]
    assert len(taken) == len(set(taken))


async def test_killed_in_the_middle_it_uses_no_presignature_twice(box: Box) -> None:
    """Its pool is gone after that, also what was never used; and it signs again."""
    async with partnered(box) as (partner, link):
        await partner.warm(3)
        ready = [partner.pool.take_oldest() for _ in range(3)]
        requests = [asked(one.execution_id, approval(10 + at)) for at, one in enumerate(ready) if one is not None]
        sent = [asyncio.create_task(link.ask(request, Partial)) for request in requests[:2]]
        await asyncio.wait(sent, timeout=0.003)
        box.daemons.kill("first")
        before = await asyncio.gather(*sent, return_exceptions=True)
        box.daemons.start("first")
        for request, first in zip(requests, [*before, None], strict=True):
            again = (await asyncio.gather(link.ask(request, Partial), return_exceptions=True))[0]
            if isinstance(first, Partial):
                assert again == first
            else:
                assert isinstance(again, Partial) or (isinstance(again, PeerRefusedError) and again.why in ("gone", "lost"))
        with pytest.raises(PeerRefusedError, match="not here") as caught:
            await link.ask(asked(requests[2].pid, approval(20)), Partial)
        assert caught.value.why == "gone"
    taken = [entry.pid for entry in entries(box, "first") if isinstance(entry, Taken)]
    assert len(taken) == len(set(taken))
    async with opened(box, "first", pool=0) as key:
        wanted = approval(21)
        assert recovered(wanted.digest, await key.signature(wanted)) == box.key.address


async def test_presignatures_of_before_a_restart_are_left_behind(box: Box) -> None:
    async with opened(box, "first", pool=1) as key:
        await key.warm(1)
        assert key.ready == 1
        box.daemons.stop("first")
        box.daemons.start("first")
        wanted = approval(30)
        assert recovered(wanted.digest, await key.signature(wanted)) == box.key.address
    refused = [entry.reason for entry in entries(box, "first") if isinstance(entry, Refused)]
    assert "that presignature is not here" in refused[-1]


async def test_no_frame_asks_to_sign_a_hash(box: Box) -> None:
    async with partnered(box) as (_, link):
        for kind, data in (("typed", keccak(b"x")), ("transaction", keccak(b"x")), ("transaction", b"\x19\x01" + bytes(64))):
            with pytest.raises(PeerRefusedError, match=r"cannot be read|understands"):
                await link.ask(Sign(os.urandom(16), os.urandom(32), kind, data, b""), Partial)  # type: ignore[arg-type]


# -- who tampers -------------------------------------------------------------------------------------------------------


async def test_a_flipped_byte_on_the_wire_is_a_message_that_did_not_come(box: Box) -> None:
    """Nobody is accused of it, and the next connection works."""
    before = len(entries(box, "first"))
    member = box.group.members[1]

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection(*member.address)

        async def carry(source: asyncio.StreamReader, to: asyncio.StreamWriter, spoilt_after: int) -> None:
            count = 0
            while piece := await source.read(1 << 16):
                count += len(piece)
                to.write(piece if count < spoilt_after else piece[:-1] + bytes((piece[-1] ^ 1,)))
            to.close()

        await asyncio.gather(carry(reader, ours, 8_000), carry(theirs, writer, 1 << 30), return_exceptions=True)
        writer.close()

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    at = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    members = list(box.group.members)
    members[1] = type(member)(member.name, at, member.fingerprint, member.certificate)
    partner = Partner(box.home.identity, Group(box.group.name, tuple(members)), box.share, 1, 1)
    try:
        await partner.about()
        with pytest.raises(SignerUnavailableError, match="left while"):
            await partner.warm(1)
    finally:
        await partner.close()
        server.close()
    assert not [entry for entry in entries(box, "first")[before:] if isinstance(entry, Broken) and entry.guilty]
    async with partnered(box) as (honest, _):
        await honest.warm(1)


async def test_a_party_that_cheats_is_named_and_then_left_alone(box: Box) -> None:
    """It has the right certificate, and sends numbers that its proofs are not of."""
    async with partnered(box, 2) as (_, link):
        for _ in range(2):
            await cheat(box, link)
        with pytest.raises(PeerRefusedError, match="a person must look"):
            await link.ask(Propose("presign"), Nonce)
    broken = [entry for entry in entries(box, "second") if isinstance(entry, Broken)]
    assert [entry.guilty for entry in broken[-2:]] == [("agent",)] * 2
    box.daemons.stop("second")
    box.daemons.start("second")


async def cheat(box: Box, link: Link) -> None:
    """One run of presigning, in which one digit of a range proof is another."""
    theirs = await link.ask(Propose("presign"), Nonce)
    nonces = ((0, os.urandom(16)), (2, theirs.nonce))
    run = execution_id("presign", box.group.id, box.share.fingerprint, nonces)
    ceremony = engine.presign(box.share, (0, 2), run)
    bodies = [message.body for message in ceremony.start()]
    place = next(NUMBER.finditer(bodies[1], 38)).start() + 3
    bodies[1] = bodies[1][:place] + (b"1" if bodies[1][place : place + 1] == b"0" else b"0") + bodies[1][place + 1 :]
    await link.ask(Start("presign", nonces), Done)
    sent = have = 0
    while True:
        try:
            await link.ask(Post(run, sent, tuple(bodies[sent:])), Done)
            sent = len(bodies)
            mail = await link.ask(Fetch(run, have), Mail)
        except PeerRefusedError:
            return
        for body in mail.bodies:
            bodies += [message.body for message in ceremony.receive(2, body)]
        have += len(mail.bodies)
        assert not mail.is_over


async def test_whoever_is_not_of_the_group_is_not_answered(box: Box) -> None:
    stranger = Link(new_identity("stranger"), box.group, 0, 1)
    with pytest.raises((SignerUnavailableError, SignatureUnknownError)):
        await stranger.ask(Who(1, box.group.id), About)
    await stranger.close()
    reader, writer = await asyncio.open_connection(*box.group.members[1].address)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    assert b"About" not in await reader.read()
    writer.close()
    async with partnered(box) as (partner, _):
        assert (await partner.about()).address == box.key.address


async def test_an_announced_giant_frame_ends_the_connection(box: Box) -> None:
    async with partnered(box) as (_, link):
        await link.ask(Who(1, box.group.id), About)
        assert link._writer is not None
        assert link._reading is not None
        link._writer.write(b"\xff\xff\xff\xff")
        await asyncio.wait([link._reading], timeout=10)
        assert not link.is_up
        assert (await link.ask(Who(1, box.group.id), About)).state == "ready"


# -- homes -------------------------------------------------------------------------------------------------------------


async def test_a_lost_party_is_restored_from_its_backup_and_signs(box: Box, tmp_path: Path) -> None:
    place = box.daemons.folder / "first"
    said = isthmus("cosigner", "backup", tmp_path / "kept", "--home", "cosigner", "--password", "file:password", "--json", at=place)
    assert said.code == 0, said.err
    box.daemons.kill("first")
    box.daemons.home("first").rename(place / "lost")
    try:
        wrong = isthmus(
            *("cosigner", "restore", tmp_path / "kept", "--home", "other", "--group", "lost/group.toml"),
            *("--password", "env:WRONG", "--json"),
            at=place,
            WRONG="another word",
        )
        assert wrong.code == 2
        assert "password" in wrong.json["error"]
        restored = isthmus(
            *("cosigner", "restore", tmp_path / "kept", "--home", "cosigner", "--group", "lost/group.toml"),
            *("--password", "file:password", "--json"),
            at=place,
        )
        assert restored.json["address"] == box.key.address
    finally:
        if not box.daemons.home("first").exists():
            (place / "lost").rename(box.daemons.home("first"))
        box.daemons.start("first")
    async with opened(box, "first", pool=0) as key:
        wanted = approval(40)
        assert recovered(wanted.digest, await key.signature(wanted)) == box.key.address


def test_a_backup_belongs_to_its_group(box: Box, tmp_path: Path) -> None:
    box.home.backup(tmp_path / "kept")
    with pytest.raises(SecretError, match="exists already"):
        box.home.backup(tmp_path / "kept")
    other = Group("other", box.group.members)
    with pytest.raises(SecretError, match="does not belong to the group other"):
        Home(tmp_path / "new", password(box.daemons, "agent")).restore(tmp_path / "kept", other)
    raw = bytearray((tmp_path / "kept").read_bytes())
    raw[-40] ^= 1
    (tmp_path / "kept").write_bytes(raw)
    with pytest.raises(SecretError):
        Home(tmp_path / "new", password(box.daemons, "agent")).restore(tmp_path / "kept", box.group)


async def test_a_set_up_that_broke_off_before_the_last_was_told_is_ended(box: Box) -> None:
    """One party uses the key, the leader and the third have only written theirs."""
    box.daemons.stop("second")
    for name in ("agent", "second"):
        (box.daemons.home(name) / "share.sealed").rename(box.daemons.home(name) / "prepared.sealed")
    told = box.daemons.start("second")
    assert told["address"] is None
    log = AuditLog(box.home.audit_path, lambda: 0)
    async with made_with(box.home, box.group, 0, log) as making:
        made = await lead(making, box.home, box.group, 0, lambda _: None)
    log.close()
    assert made.address == box.key.address
    assert made.fingerprint == box.share.fingerprint.hex()
    box.daemons.stop("second")
    assert box.daemons.start("second")["address"] == box.key.address
    async with partnered(box, 2) as (partner, _):
        assert (await partner.about()).state == "ready"


def test_a_party_is_made_and_waits_for_the_others(box: Box, tmp_path: Path) -> None:
    """By its commands, from primes that were made before. A set-up without the others fails at once and costs no primes."""
    for name, line in zip(("primes", "password"), (PRIMES.read_text().split()[0], "a word of this party's"), strict=True):
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_text(line)
    common = ("--home", "home", "--password", "file:password", "--json")
    made = isthmus("cosigner", "init", "dora", "--at", "127.0.0.1:7999", "--primes", "primes", *common, at=tmp_path)
    assert made.code == 0, made
    assert made.json["has_primes"]
    assert made.json["fingerprint"] in made.json["entry"]
    (tmp_path / "home" / "group.toml").write_text(box.home.group_path.read_text() + "\n" + made.json["entry"])
    shown = isthmus("cosigner", "show", *common, at=tmp_path)
    assert (shown.json["party"], shown.json["name"], shown.json["address"]) == (3, "dora", None)
    failed = isthmus("cosigner", "setup", *common, at=tmp_path)
    assert failed.code in (3, 4)
    assert "\n" not in failed.json["error"]
    assert isthmus("cosigner", "show", *common, at=tmp_path).json["has_primes"]
    again = isthmus("cosigner", "init", "dora", "--primes", "primes", *common, at=tmp_path)
    assert again.code == 2
    assert "not overwritten" in again.json["error"]
    assert "a word of this party's" not in "".join(map(str, (made, shown, failed, again)))


def test_a_home_has_one_daemon(box: Box) -> None:
    place = box.daemons.folder / "first"
    said = isthmus("cosigner", "serve", "--home", "cosigner", "--password", "file:password", "--json", at=place)
    assert said.code == 2
    assert "is this party already" in said.json["error"]


def test_nothing_shows_a_password_or_a_share(box: Box) -> None:
    """Logs, audit files, what the daemons said, their arguments: over all that the tests before this did to them."""
    words = [password(box.daemons, name).reveal().encode() for name in ("agent", "first", "second")]
    words.append(bytes(box.home.identity.key))
    for path in box.daemons.folder.rglob("*"):
        if path.is_file() and path.name != "password":
            assert not [word for word in words if word in path.read_bytes()], path
            if path.suffix in (".sealed", ".jsonl", ".log"):
                assert path.stat().st_mode & 0o077 == 0 or path.name == "said.log", path
    for name in ("first", "second"):
        line = Path(f"/proc/{box.daemons.pid(name)}/cmdline").read_bytes()
        assert not [word for word in words if word in line]
    shown = f"{box.home!r} {box.home.vault!r} {box.home.identity!r} {box.share!r}"
    assert not [word for word in words if word.decode("latin-1") in shown]
