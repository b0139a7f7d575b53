"""A signing service over HTTP that is not who it should be, does not know us, is broken, or lies: nothing of it is believed."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import onchain_samples as o
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from eth_account import Account
from signing_service import Authority, Service

from agent.domain.errors import IsthmusError, SecretError, SignerError, SignerUnavailableError
from agent.keys.custody import jsonrpc, web3signer
from agent.keys.http import ANSWER_BYTES_MAX
from agent.keys.remote import RemoteSigner
from agent.keys.secrets import Secrets

TOKEN = "a word of two"
OTHER = "0x" + "17" * 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("service")
    for name in ("tls", "foreign"):
        authority = Authority(made / name)
        authority.issue("server")
        authority.issue("agent")
    for name, text in (("token", TOKEN), ("wrong", "another word"), ("odd", "two\nlines")):
        (made / name).touch(mode=0o600)
        (made / name).write_text(text)
    return made


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[Service]:
    made = Service(o.KEY_HEX, token=TOKEN, certificates=folder / "tls", wants_certificate=True)
    yield made
    made.stop()


def settings(service: Service, **changes: str) -> dict[str, str]:
    tls = {"ca": "tls/ca.pem", "certificate": "tls/agent.pem", "certificate_key": "tls/agent.key"}
    found = {"address": o.OWNER, "url": service.url, "identifier": service.identifier, "token": "file:token", **tls, **changes}
    return {name: value for name, value in found.items() if value}


@contextlib.asynccontextmanager
async def opened(folder: Path, module: Any, given: dict[str, str]) -> AsyncIterator[RemoteSigner]:
    signer = RemoteSigner(await module.open_key("far", module.Config.model_validate(given), Secrets(folder)))
    signer.allow(o.policy())
    try:
        yield signer
    finally:
        await signer.close()


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"token": ""}, SignerError, "401.*check wallet.token"),
        ({"token": "file:wrong"}, SignerError, "401.*check wallet.token"),
        ({"token": "file:odd"}, SecretError, "one line of plain text"),
        ({"token": "env:NOT_THERE_AT_ALL"}, SecretError, "is not set"),
        ({"ca": "foreign/ca.pem"}, SignerUnavailableError, "do not know each other"),
        ({"ca": ""}, SignerUnavailableError, "do not know each other"),
        ({"ca": "nowhere.pem"}, SecretError, "wallet.ca or wallet.certificate"),
        ({"certificate": "", "certificate_key": ""}, SignerUnavailableError, "know each other|does not answer"),
        ({"certificate": "foreign/agent.pem", "certificate_key": "foreign/agent.key"}, SignerUnavailableError, "know|not answer"),
        ({"certificate_key": "foreign/agent.key"}, SecretError, "wallet.ca or wallet.certificate"),
        ({"certificate_key": "tls/agent.pem"}, SecretError, "chmod 600"),
    ],
    ids=["no token", "wrong token", "odd token", "lost token", "other authority", "system's authorities", "no such authority",
         "no certificate", "foreign certificate", "other key", "open key"],
)  # fmt: skip
async def test_both_sides_must_know_each_other(
    service: Service, folder: Path, changes: dict[str, str], error: type[IsthmusError], words: str
) -> None:
    asked = len(service.asked)
    with pytest.raises(error, match=words) as caught:
        async with opened(folder, web3signer, settings(service, **changes)) as signer:
            await signer.sign(o.permit_typed())
    assert "\n" not in str(caught.value)
    assert TOKEN not in str(caught.value)
    assert len(service.asked) == asked
    async with opened(folder, web3signer, settings(service)) as signer:
        await signer.sign(o.permit_and_swap())


@pytest.mark.parametrize("wants", ["certificate", "token"])
async def test_one_of_both_is_enough_where_the_service_wants_one(folder: Path, wants: str) -> None:
    is_token = wants == "token"
    service = Service(o.KEY_HEX, token=TOKEN * is_token, certificates=folder / "tls", wants_certificate=not is_token)
    dropped = {"certificate": "", "certificate_key": ""} if is_token else {"token": ""}
    try:
        async with opened(folder, web3signer, settings(service, **dropped)) as signer:
            await signer.sign(o.permit_and_swap())
        assert [raw[:1] for raw in service.asked] == [b"\x19", b"\x02"], "it was given what it can read, and hashes it itself"
    finally:
        service.stop()


FOREIGN = Account.from_key(OTHER).unsafe_sign_hash(bytes(32)).signature


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        ((200, b"0x" + bytes(FOREIGN).hex().encode()), SignerError, "is not of"),
        ((200, b"0x" + b"00" * 65), SignerError, "is not of"),
        ((200, b"0x" + b"ff" * 65), SignerError, "is not of"),
        ((200, b"0x1234"), SignerError, "no signature"),
        ((200, b""), SignerError, "no signature"),
        ((200, b"x" * (ANSWER_BYTES_MAX + 1)), SignerError, "answers more than"),
        ((404, b""), SignerError, "404"),
        ((302, b""), SignerError, "302"),
        ((403, b""), SignerError, "let this agent in"),
        ((500, b"a long trace"), SignerUnavailableError, "500.*look at its log"),
        ((429, b""), SignerUnavailableError, "429"),
    ],
)
async def test_an_answer_that_is_no_signature_of_ours(
    service: Service, folder: Path, answer: tuple[int, bytes], error: type[SignerError], words: str
) -> None:
    async with opened(folder, web3signer, settings(service)) as signer:
        service.answer = answer
        with pytest.raises(error, match=words) as caught:
            await signer.sign(o.permit_and_swap())
        service.answer = None
        assert isinstance(caught.value, SignerUnavailableError) == (error is SignerUnavailableError)
        await signer.sign(o.permit_and_swap())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"url": "http://10.0.0.1:9000"}, "over https only"),
        ({"url": "ftp://127.0.0.1"}, "not an address"),
        ({"url": "https://user:word@127.0.0.1"}, "does not belong in the url"),
        ({"url": "https://127.0.0.1/?key=word"}, "does not belong in the url"),
        ({"url": "https://signer.example", "token": "", "certificate": "", "certificate_key": ""}, "must know who asks"),
        ({"certificate": ""}, "belong together"),
        ({"url": "http://127.0.0.1:1"}, "need https"),
        ({"identifier": "0x12"}, "128 hex digits"),
    ],
)
def test_settings_that_are_not_safe(service: Service, changes: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        web3signer.Config.model_validate(settings(service, **changes))


async def test_a_key_that_the_service_lacks_is_named(service: Service, folder: Path) -> None:
    other = Account.from_key(OTHER)
    identifier = "0x" + other._key_obj.public_key.to_bytes().hex()
    with pytest.raises(SignerError, match=f"does not have the key of {other.address}"):
        async with opened(folder, web3signer, settings(service, identifier=identifier, address=other.address)):
            pass


# -- JSON-RPC ----------------------------------------------------------------------------------------------------------

ACCOUNT = Account.from_key(o.KEY_HEX)


def signed(change: Callable[[dict[str, Any]], None], params: list[Any]) -> str:
    """What eth-account signs after `change`."""
    asked = params[0]
    tx = {name: asked[name] for name in ("chainId", "nonce", "gas", "maxFeePerGas", "maxPriorityFeePerGas", "value", "data")}
    tx |= {"type": 2, "to": bytes.fromhex(asked["to"][2:])}
    change(tx)
    return "0x" + bytes(ACCOUNT.sign_transaction(tx).raw_transaction).hex()


LIES: dict[str, tuple[Callable[[list[Any]], Any], str]] = {
    "another recipient": (lambda p: signed(lambda tx: tx.update(to=bytes(20)), p), "another transaction"),
    "another amount": (lambda p: signed(lambda tx: tx.update(value=1), p), "another transaction"),
    "another nonce": (lambda p: signed(lambda tx: tx.update(nonce=8), p), "another transaction"),
    "another chain": (lambda p: signed(lambda tx: tx.update(chainId=1), p), "another transaction"),
    "another call": (lambda p: signed(lambda tx: tx.update(data="0x" + "00" * 68), p), "another transaction"),
    "no bytes": (lambda p: "0xzz", "no bytes"),
    "nothing": (lambda p: None, "no bytes"),
    "a number": (lambda p: 5, "no bytes"),
    "unsigned": (lambda p: "0x02c0", "does not end in a signature"),
    "a longer one": (lambda p: signed(lambda tx: None, p) + "00", "bytes missing, or too many"),
}


@contextlib.asynccontextmanager
async def program(lie: Callable[[list[Any]], Any]) -> AsyncIterator[dict[str, str]]:
    async def talk(request: web.Request) -> web.Response:
        asked = await request.json()
        methods = {"eth_accounts": lambda p: [ACCOUNT.address], "eth_signTransaction": lie}
        if asked["method"] not in methods:
            return web.json_response({"jsonrpc": "2.0", "id": 1, "error": {"code": -32601, "message": "not\nhere"}})
        return web.json_response({"jsonrpc": "2.0", "id": 1, "result": methods[asked["method"]](asked["params"])})

    app = web.Application()
    app.router.add_post("/", talk)
    async with TestServer(app, host="127.0.0.1") as server:
        yield {"address": ACCOUNT.address, "url": str(server.make_url("")).rstrip("/")}


@pytest.mark.parametrize(("lie", "words"), LIES.values(), ids=LIES)
async def test_a_program_that_signs_something_else(tmp_path: Path, lie: Callable[[list[Any]], Any], words: str) -> None:
    async with program(lie) as given, opened(tmp_path, jsonrpc, given) as signer:
        with pytest.raises(SignerError, match=words):
            await signer.sign(o.calls(o.approve(), to=o.USDC))
        with pytest.raises(SignerError, match="does not sign: not here"):
            await signer.sign(o.permit_typed())


async def test_a_program_that_answers_as_it_should(tmp_path: Path) -> None:
    for wrap in (lambda raw: raw, lambda raw: {"raw": raw, "tx": {}}):  # the second is how some programs answer
        async with (
            program(lambda p, wrap=wrap: wrap(signed(lambda tx: None, p))) as given,
            opened(tmp_path, jsonrpc, given) as signer,
        ):
            await signer.sign(o.calls(o.approve(), to=o.USDC))
