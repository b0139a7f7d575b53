"""A custodian over HTTP beside the suite: lost answers, tokens, its own words, a promise that the chain does not know."""

import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import account_kit as kit
import jwt
import pytest
from custodian_stub import API_KEY, Custodian
from vault_case import Bench
from vault_fireblocks import open_case

from agent.domain.errors import SecretError, SignerError, SignerUnavailableError
from agent.domain.plan import Call
from agent.keys.secrets import Secret
from agent.keys.transfers import APPROVE
from agent.keys.vaults.fireblocks import STATES, FireblocksVault

pytestmark = [pytest.mark.chain, pytest.mark.xdist_group("vaults")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with kit.running() as chain:
        bench = open_case(chain, tmp_path_factory.mktemp("custodian"))
        yield bench
        bench.end()


@pytest.fixture
async def bench(made: Bench, tmp_path: Path) -> AsyncIterator[Bench]:
    made.begin(tmp_path)
    yield made
    await made.stop()


@pytest.fixture
def custodian(bench: Bench) -> Custodian:
    found: Custodian = bench.stand_in
    return found


async def test_an_answer_that_is_lost_is_asked_for_and_nothing_is_posted_twice(bench: Bench, custodian: Custodian) -> None:
    vault, before = await bench.opened(), bench.paid()
    custodian.lose, posts = 1, custodian.posts
    ticket = await vault.propose("rent", bench.pay(600))
    assert ticket.state == "waiting"
    assert "did not answer" in ticket.reason
    ticket = await vault.poll(ticket)
    assert "PENDING_AUTHORIZATION" in ticket.reason
    custodian.approve(ticket.id)
    assert (await vault.poll(ticket)).state == "done"
    assert (len(custodian.kept), custodian.posts - posts, bench.paid() - before) == (1, 1, 600)


async def test_one_that_never_arrived_is_posted_again_under_the_same_id(bench: Bench, custodian: Custodian) -> None:
    vault = await bench.opened()
    custodian.status = 503
    ticket = await vault.propose("rent", bench.pay(600))
    assert (ticket.state, custodian.kept) == ("waiting", {})
    with pytest.raises(SignerUnavailableError):
        await vault.poll(ticket)
    custodian.status = None
    assert (await vault.poll(ticket)).state == "waiting"
    assert [one["externalTxId"] for one in custodian.kept.values()] == [ticket.id]


@pytest.mark.parametrize("status", STATES)
async def test_every_word_of_the_custodian_has_a_state(bench: Bench, custodian: Custodian, status: str) -> None:
    vault = await bench.opened()
    ticket = await vault.propose("rent", bench.pay(600))
    custodian.set(ticket.id, status=status, subStatus="WHY")
    ticket = await vault.poll(ticket)
    assert ticket.state == (STATES[status] if status != "COMPLETED" else "sent"), "completed, and the chain knows nothing of it"
    assert f"{status} WHY" in ticket.reason or status == "CANCELLED"


async def test_a_word_that_is_new_changes_nothing(bench: Bench, custodian: Custodian) -> None:
    vault = await bench.opened()
    ticket = await vault.propose("rent", bench.pay(600))
    custodian.set(ticket.id, status="PENDING_THE_MOON", subStatus="\x1b[2J" * 99, txHash="\x1b[2J" * 99)
    ticket = await vault.poll(ticket)
    assert (ticket.state, "PENDING_THE_MOON" in ticket.reason, ticket.tx_hash) == ("waiting", True, "")
    assert ticket.reason.isprintable()
    assert len(ticket.reason) < 120


async def test_a_right_is_taken_away_by_a_contract_call(bench: Bench, custodian: Custodian) -> None:
    vault = await bench.opened()
    data = APPROVE.data(kit.SOMEBODY, 0)
    await vault.propose("no more", (Call(bench.desk.token, data),))
    (kept,) = custodian.kept.values()
    assert (kept["operation"], kept["assetId"], kept["amount"]) == ("CONTRACT_CALL", "ETH_TEST", "0")
    assert kept["extraParameters"] == {"contractCallData": "0x" + data.hex()}
    assert kept["destination"]["oneTimeAddress"]["address"] == bench.desk.token


async def test_a_token_is_for_one_request(bench: Bench, custodian: Custodian) -> None:
    """Each claim that is wrong, or heard before, is enough not to be let in."""
    vault = await bench.opened()
    path, good = "/v1/transactions/external_tx_id/none", {"sub": API_KEY, "bodyHash": hashlib.sha256(b"").hexdigest()}
    now_s = bench.clock.now_ns() // 10**9
    good |= {"uri": path, "iat": now_s, "exp": now_s + 25}
    wrong = [{"uri": "/v1"}, {"sub": "x"}, {"bodyHash": "00"}, {"exp": now_s}, {"exp": now_s + 31}, {"nonce": "once"}]
    for at, change in enumerate([{"nonce": "once"}, *wrong]):
        claims = {"nonce": str(at), **good, **change}
        token = jwt.encode(claims, custodian.secret, algorithm="RS256")
        headers = {"X-API-Key": API_KEY, "Authorization": f"Bearer {token}"}
        async with vault._session.get(custodian.url + path, headers=headers) as answer:
            assert answer.status == (401 if at else 404), change
    custodian.status = 401
    with pytest.raises(SignerError, match="does not let this program in"):
        await vault.propose("rent", bench.pay(600))


async def test_a_secret_that_is_no_key_and_a_coin_without_a_word(bench: Bench) -> None:
    vault = await bench.opened()
    with pytest.raises(SecretError, match="no RSA key") as caught:
        FireblocksVault(vault._means, vault._config, Secret("a canary"))
    assert "canary" not in repr(caught.value)
    config = vault._config.model_copy(update={"assets": {"ETH": "ETH"}})
    other = bench.kept(FireblocksVault(vault._means, config, vault._secret))
    with pytest.raises(SignerError, match="the custodian's word for USD is not known; add it to assets of cold"):
        await other.propose("rent", bench.pay(600))
    assert bench.filed() == 0
