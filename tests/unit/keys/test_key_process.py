"""The signer process under attack: whoever reaches its socket gets signatures within its policy, and nothing else, ever."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import onchain_samples as o
import pytest
from cli_kit import isthmus
from eth_account import Account
from signer_process import PASSWORD, SignerProcess

from agent.app import RealClock
from agent.config import load
from agent.domain.errors import SecretError, SignerError, SignerUnavailableError
from agent.domain.plan import SignedTransaction, TypedData
from agent.keys.custody import process
from agent.keys.digest import typed_preimage
from agent.keys.frames import FRAME_BYTES_MAX, Ask, Denied, Given, Hello, check_peer, pack, read_frame
from agent.keys.keystore import Keystore
from agent.keys.remote import RemoteSigner, recovered
from agent.keys.secrets import Secret, Secrets
from agent.keys.signer_process import CLIENTS_MAX
from agent.keys.steps import Preimage, alone, steps
from agent.wallet import close_wallet, open_canceller

pytestmark = pytest.mark.xdist_group("signer_process")
POLICIES = {o.CHAIN: o.policy()}


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SignerProcess]:
    """One signer for the whole page: after each attack it must still sign."""
    made = SignerProcess(tmp_path_factory.mktemp("signer"), o.KEY_HEX, o.ROUTER, o.WETH, o.USDC)
    made.start()
    yield made
    made.stop()


async def signer(far: SignerProcess, **changes: Any) -> RemoteSigner:
    config = process.Config(address=far.address, socket="run/signer.sock")
    made = RemoteSigner(await process.open_key("far", config, Secrets(far.folder)))
    made.allow(o.policy(**changes))
    return made


class Raw:
    """A connection of somebody who writes what they like."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hello: Hello) -> None:
        self.reader, self.writer, self.hello = reader, writer, hello

    async def say(self, raw: bytes) -> Any:
        """What comes back; None when the connection ended."""
        self.writer.write(raw)
        try:
            return await read_frame(self.reader, 5)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def ask(self, step: Preimage, number: int = 1, **changes: Any) -> Any:
        typed = step.source if isinstance(step.source, TypedData) else None
        asked = Ask(self.hello.greeting, number, step.kind, step.data, typed)
        return await self.say(pack(msgspec.structs.replace(asked, **changes)))


@contextlib.asynccontextmanager
async def connected(far: SignerProcess) -> AsyncIterator[Raw]:
    reader, writer = await asyncio.open_unix_connection(far.socket)
    try:
        hello = await read_frame(reader, 5)
        assert isinstance(hello, Hello)
        yield Raw(reader, writer, hello)
    finally:
        writer.close()


def step_of(unsigned: Any) -> Preimage:
    return next(steps(unsigned, POLICIES, o.OWNER, "k"))


TYPED, CALL = step_of(o.permit_typed()), step_of(o.calls(o.approve(), to=o.USDC))


async def still_signs(far: SignerProcess) -> None:
    made = await signer(far)
    await made.sign(o.permit_and_swap())
    await made.close()


async def test_it_says_what_it_is_and_signs_the_steps_of_a_swap(far: SignerProcess) -> None:
    async with connected(far) as raw:
        assert (raw.hello.address, raw.hello.chains, raw.hello.name) == (o.OWNER, (o.CHAIN,), "main")
        assert raw.hello.is_undumpable
        for number, step in enumerate((TYPED, CALL, TYPED), 1):
            answer = await raw.ask(step, number)
            assert isinstance(answer, Given)
            assert recovered(step.digest, answer.signature) == o.OWNER
    await still_signs(far)


async def test_its_policy_is_its_own(far: SignerProcess) -> None:
    """An agent that was turned, and thinks that everything is allowed, gets nothing more."""
    turned = await signer(far, tokens=frozenset({o.OTHER, o.USDC}), contracts={o.OTHER: frozenset({"0x095ea7b3"})}, router=o.OTHER)
    with pytest.raises(SignerError, match=r"the signer process refuses: policy: contract 0xcc.* is not on"):
        await turned.sign(o.calls(o.approve(), to=o.OTHER))
    with pytest.raises(SignerError, match=r"the signer process refuses: policy: a permit for 0xcc"):
        await turned.sign(o.permit_typed(spender=o.OTHER))
    await turned.close()
    log = (far.folder / ".isthmus" / "signer.log").read_text()
    assert "signature_refused" in log, "what was refused is recorded with its reason"
    assert "is not on this key's list" in log
    await still_signs(far)


async def test_a_frame_that_was_heard_before_is_refused(far: SignerProcess) -> None:
    async with connected(far) as raw, connected(far) as other:
        frame = pack(Ask(raw.hello.greeting, 1, CALL.kind, CALL.data))
        assert isinstance(await raw.say(frame), Given)
        for connection in (raw, other):
            answer = await connection.say(frame)
            assert isinstance(answer, Denied)
            assert "made before" in answer.reason
            assert await connection.say(frame) is None, "the connection is over"
    async with connected(far) as raw:
        assert isinstance(await raw.ask(CALL, 2), Denied), "numbers are not skipped"
    await still_signs(far)


async def test_a_bare_hash_has_no_way_in(far: SignerProcess) -> None:
    bare = [
        Preimage("typed", TYPED.digest, o.permit_typed()),
        Preimage("transaction", CALL.digest, CALL.source),
        Preimage("transaction", TYPED.data, CALL.source),
        Preimage("typed", CALL.data, o.permit_typed()),
        Preimage("typed", b"\x19\x01" + TYPED.digest * 2, o.permit_typed()),
        Preimage("typed", b"\x19Ethereum Signed Message:\n32" + TYPED.digest, o.permit_typed()),
    ]
    async with connected(far) as raw:
        for number, step in enumerate(bare, 1):
            assert isinstance(await raw.ask(step, number), Denied), step
        assert isinstance(await raw.ask(TYPED, len(bare) + 1, typed=None), Denied), "typed data that is not shown"
        assert isinstance(await raw.ask(TYPED, len(bare) + 2), Given)
    for text in (
        b'{"type":"Digest","digest":"' + TYPED.digest.hex().encode() + b'"}',
        b'{"type":"Ask","greeting":"","number":1,"kind":"hash","data":""}',
        b'{"type":"Ask","greeting":"","number":1,"kind":"typed","data":"","digest":""}',
    ):
        async with connected(far) as raw:
            answer = await raw.say(len(text).to_bytes(4, "big") + text)
            assert isinstance(answer, Denied)
            assert "none of the protocol" in answer.reason
    await still_signs(far)


@pytest.mark.parametrize("seed", range(4))
async def test_a_flipped_byte_signs_nothing_else(far: SignerProcess, seed: int) -> None:
    """What is signed all the same is within the policy, and is not what was asked for: the agent does not take it."""
    async with connected(far) as raw:
        for number, at in enumerate(range(seed, len(TYPED.data), 4), 1):
            data = bytearray(TYPED.data)
            data[at] ^= 1 << (at % 8)
            assert isinstance(await raw.ask(TYPED, number, data=bytes(data)), Denied), at
    signed = 0
    async with connected(far) as raw:
        for number, at in enumerate(range(seed, len(CALL.data), 4), 1):
            data = bytearray(CALL.data)
            data[at] ^= 1 << (at % 8)
            answer = await raw.ask(CALL, number, data=bytes(data))
            if isinstance(answer, Given):
                changed = Preimage("transaction", bytes(data), CALL.source)
                alone(changed, {o.CHAIN: o.policy(gas_fee_max=201 * 10**9, gas_limit_max=3_000_000)}, "k")
                assert recovered(CALL.digest, answer.signature) != o.OWNER
                signed += 1
    assert signed < len(CALL.data) // 4
    await still_signs(far)


async def test_typed_data_of_another_kind_is_refused(far: SignerProcess) -> None:
    mail = TypedData(
        "m", {"name": "Ether Mail", "chainId": o.CHAIN}, {"Mail": [{"name": "to", "type": "address"}]}, "Mail", {"to": o.THIEF}
    )
    strange = [
        mail,
        msgspec.structs.replace(o.permit_typed(), primary="PermitBatch"),
        o.permit_typed(chain_id=1),
        o.permit_typed(permit2=o.THIEF),
        o.permit_typed(spender=o.THIEF),
        o.permit_typed(amount=2**160 - 1),
        o.permit_typed(token=o.OTHER),
    ]
    async with connected(far) as raw:
        for number, typed in enumerate(strange, 1):
            data = typed_preimage(typed) if typed.primary in typed.types else TYPED.data
            assert isinstance(await raw.ask(Preimage("typed", data, typed), number), Denied), typed
        assert isinstance(await raw.ask(TYPED, len(strange) + 1), Given)
    await still_signs(far)


async def test_typed_data_that_would_take_for_ever_is_refused_at_once(far: SignerProcess) -> None:
    """Twelve types of twelve fields each, one inside the other, are nine million million places for a value."""
    types = {f"T{n}": [{"name": f"f{m}", "type": f"T{n + 1}" if n < 11 else "bool"} for m in range(12)] for n in range(12)}
    domain: dict[str, str | int] = {"name": "Permit2", "chainId": o.CHAIN, "verifyingContract": o.PERMIT2}
    async with asyncio.timeout(5), connected(far) as raw:
        step = Preimage("typed", TYPED.data, TypedData("x", domain, types, "T0", {}))
        assert isinstance(await raw.ask(step), Denied)
        assert isinstance(await raw.ask(TYPED, 2), Given)


@pytest.mark.parametrize(
    "raw",
    [
        b"\xff\xff\xff\xff",
        (FRAME_BYTES_MAX + 1).to_bytes(4, "big"),
        bytes(4),
        b"\x00\x00\x00\x02{}",
        b"\x00\x00\x00\x05\x00\xff\x00\xff\x00",
        (40_000).to_bytes(4, "big") + b"[" * 40_000,
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=["endless", "one too long", "empty", "no frame", "noise", "nested", "http"],
)
async def test_what_is_no_frame_ends_that_connection_alone(far: SignerProcess, raw: bytes) -> None:
    async with connected(far) as bad, connected(far) as good:
        assert isinstance(await bad.say(raw), Denied)
        assert await bad.say(b"") is None
        assert isinstance(await good.ask(CALL), Given)


async def test_one_who_stalls_holds_up_nobody(far: SignerProcess) -> None:
    async with connected(far) as slow:
        slow.writer.write(b"\x00\x00")
        await still_signs(far)


async def test_only_so_many_are_answered(far: SignerProcess) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(CLIENTS_MAX):
            await stack.enter_async_context(connected(far))
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await stack.enter_async_context(connected(far))
        with pytest.raises(SignerUnavailableError):
            await signer(far)
    key = process.ProcessKey("far", far.address, far.socket)
    async with asyncio.timeout(10):
        while await key.health():  # until it has noticed that they left
            pass
    await still_signs(far)


async def test_two_agents_at_once(far: SignerProcess) -> None:
    first, second = await signer(far), await signer(far)
    done = await asyncio.gather(*(one.sign(o.permit_and_swap()) for one in (first, second) for _ in range(5)))
    assert len(set(map(msgspec.json.encode, done))) == 1
    await first.close()
    await second.close()


async def test_killed_in_the_middle_nothing_was_signed_and_it_comes_back(far: SignerProcess) -> None:
    made = await signer(far)
    await made.sign(o.permit_and_swap())
    os.kill(far.pid, signal.SIGSTOP)  # it has the request and answers no more
    waiting = asyncio.create_task(made.sign(o.permit_and_swap()))
    await asyncio.sleep(0)
    far.kill()
    with pytest.raises(SignerUnavailableError, match=r"start it: isthmus signer|nothing was signed"):
        await waiting
    assert far.socket.exists(), "the socket stays behind"
    assert "isthmus signer" in await made.health()
    far.start()
    await made.sign(o.permit_and_swap())
    far.kill()
    far.start()
    await made.sign(o.permit_and_swap())  # a restart between two requests is not even noticed
    assert await made.health() == ""
    await made.close()


RULES = """
[[policy]]
name = "hourly"
effect = "allow"
acts = ["swap"]
give = ["USDT"]
window_s = 3600
window_max = "5"
[[policy]]
name = "the rest"
effect = "allow"
acts = ["approve", "permit"]
"""


async def test_many_at_once_share_one_window_and_a_restart_forgets_nothing(tmp_path: Path) -> None:
    """Eight agents ask for forty swaps of one coin each; the signer's own settings allow five in an hour."""
    far = SignerProcess(tmp_path, o.KEY_HEX, o.ROUTER, o.WETH, o.USDC, RULES)
    far.start()
    try:
        agents = [await signer(far) for _ in range(8)]
        swaps = [o.calls(o.execute(b"\x00", [o.v3()]), nonce=nonce) for nonce in range(40)]
        done = await asyncio.gather(*(agents[n % 8].sign(swap) for n, swap in enumerate(swaps)), return_exceptions=True)
        refused = [str(one) for one in done if isinstance(one, SignerError)]
        signed = [swap for swap, one in zip(swaps, done, strict=True) if not isinstance(one, BaseException)]
        assert (len(signed), len(refused)) == (5, 35), refused[:1]
        assert all("hourly" in one for one in refused)
        assert far.stop() == 0
        far.start()
        with pytest.raises(SignerError, match="hourly"):
            await agents[0].sign(swaps[39] if swaps[39] not in signed else swaps[0])
        await agents[1].sign(msgspec.structs.replace(signed[0], gas_tip=2 * 10**9))  # to outbid itself takes no room
        for one in agents:
            await one.close()
    finally:
        far.stop()


async def test_the_kill_switch_takes_back_through_it(far: SignerProcess) -> None:
    """Nothing, sent to oneself; within the fee that the signer's own settings pass."""
    loaded = load(far.folder / "isthmus.toml")
    wallet = await open_canceller(loaded, RealClock(), o.CHAIN, o.OWNER, 500)
    back = o.calls(b"", to=o.OWNER, gas_limit=21_000)
    signed = await wallet.sign(back)
    assert isinstance(signed, SignedTransaction)
    assert Account.recover_transaction(signed.raw) == o.OWNER
    with pytest.raises(SignerError, match="the signer process refuses: policy: gas fee"):
        await wallet.sign(msgspec.structs.replace(back, gas_fee_max=500 * 10**9))
    with pytest.raises(SignerError, match="not on this key's list"):
        await wallet.sign(o.permit_and_swap())
    await close_wallet(wallet)
    with pytest.raises(SecretError, match="is not 0xdd"):
        await open_canceller(loaded, RealClock(), o.CHAIN, o.THIEF, 500)


def test_nobody_else_can_open_the_socket(far: SignerProcess) -> None:
    assert stat.S_IMODE(far.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(far.socket.parent.stat().st_mode) == 0o700


async def test_an_open_door_is_refused_by_the_agent_too(far: SignerProcess) -> None:
    for path, mode in ((far.socket.parent, 0o700), (far.socket, 0o600)):
        path.chmod(mode | 0o010)
        with pytest.raises(SecretError, match="chmod"):
            await signer(far)
        path.chmod(mode)
    await still_signs(far)


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("perl") is None, reason="needs root, to be somebody else, and perl")
async def test_another_user_is_sent_away() -> None:
    """An address without a file, which everybody can reach: what is left is what the kernel says about the other end."""
    heard: asyncio.Queue[str] = asyncio.Queue()

    async def talk(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            check_peer(writer)
            heard.put_nowait("")
        except SignerError as error:
            heard.put_nowait(str(error))
        writer.close()

    name = f"isthmus-test-{os.getpid()}"
    server = await asyncio.start_unix_server(talk, "\0" + name)
    script = 'use Socket; socket(S,PF_UNIX,SOCK_STREAM,0); connect(S, pack_sockaddr_un("\\0".$ARGV[0])) or die; sysread(S,$b,1);'
    for user, words in ((65534, "belongs to user 65534"), (os.geteuid(), "")):
        child = await asyncio.create_subprocess_exec("perl", "-e", script, name, user=user)
        async with asyncio.timeout(10):
            assert words in await heard.get()
            assert await child.wait() == 0
    server.close()
    await server.wait_closed()


def test_a_second_signer_is_refused_and_so_is_a_key_without_work(far: SignerProcess, tmp_path: Path) -> None:
    word = tmp_path / "word"
    word.touch(mode=0o600)
    word.write_text(PASSWORD)
    again = isthmus("signer", "--password", f"file:{word}", at=far.folder)
    assert (again.code, "is answering at" in again.err) == (2, True), again
    Keystore(far.folder / ".isthmus" / "keystore", 2**12).import_key("idle", Secret("17" * 32), Secret(PASSWORD))
    idle = isthmus("signer", "--name", "idle", "--socket", "run/other.sock", "--password", f"file:{word}", at=far.folder)
    assert (idle.code, "may sign nothing" in idle.err) == (2, True), idle
    wrong = isthmus("signer", "--password", "env:WRONG", at=far.folder, WRONG="wrong")
    assert (wrong.code, "does not open key main" in wrong.err) == (2, True), wrong
    for done in (again, idle, wrong):
        assert "Traceback" not in done.err


def test_the_key_and_its_password_are_nowhere(far: SignerProcess) -> None:
    """Not in arguments, environment, log or words of the process; it has no core dumps and its key cannot be swapped out."""
    place = Path(f"/proc/{far.pid}")
    canaries = [text.encode() for text in (o.KEY_HEX, PASSWORD)]
    shown = [(place / name).read_bytes() for name in ("cmdline", "environ")]
    shown += [far.said.encode(), *(path.read_bytes() for path in far.folder.rglob("*") if path.is_file())]
    assert len(shown) > 4
    assert not [canary for text in shown for canary in canaries if canary.lower() in text.lower()]
    limits = (place / "limits").read_text()
    assert [line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core file size")] == [["0", "0"]]
    locked = next(line for line in (place / "status").read_text().splitlines() if line.startswith("VmLck"))
    assert int(locked.split()[1]) >= 4, "the page with the key stays in memory"


def test_stopped_in_order_it_leaves_no_socket(far: SignerProcess) -> None:
    assert far.stop() == 0
    assert not far.socket.exists()
    told = far.start()
    assert told["locked"]
    assert told["address"] == o.OWNER
    assert json.dumps(told).count(o.KEY_HEX) == 0
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(far.socket))


def test_the_keys_are_listed_and_a_signer_that_is_away_is_told(far: SignerProcess) -> None:
    shown = isthmus("keys", "list", "--json", at=far.folder)
    row = next(one for one in shown.json if one["kind"] == "process")
    assert (row["address"], row["tier"], row["latency"], row["used_by"]) == (o.OWNER, "warm", "milliseconds", "wallet")
    assert (row["health"], row["ms"] > 0) == ("", True)
    far.kill()
    away = isthmus("keys", "list", "--json", at=far.folder)
    assert away.code == 0
    assert "start it: isthmus signer" in next(one["health"] for one in away.json if one["kind"] == "process")
    table = isthmus("keys", "list", at=far.folder)
    assert "start it: isthmus signer" in table.out
    assert max(map(len, table.out.split("start it")[0].splitlines()[:5])) <= 80
    far.start()
