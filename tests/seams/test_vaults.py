"""One suite for every vault: the same request is one ticket and happens once, what policy forbids is not filed, no means no.

Kinds are found, not listed: a new `agent/keys/vaults/<kind>.py` fails here until `vault_<kind>.py` says who agrees and how.
"""

import asyncio
import importlib
import pkgutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import account_kit as kit
import pytest
from account_kit import Chain as Desk
from vault_case import FRIEND, LASTS_S, STRANGER, WINDOW_MAX, WINDOW_S, Bench, same, settled

import agent.keys.vaults
from agent.domain.errors import SignerError, SignerUnavailableError
from agent.ports import Vault

pytestmark = [pytest.mark.chain, pytest.mark.xdist_group("vaults")]
KINDS = sorted(found.name for found in pkgutil.iter_modules(agent.keys.vaults.__path__))
TIERS = ("hot", "warm", "cold")


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    with kit.running() as chain:
        yield chain


@pytest.fixture(scope="module", params=KINDS)
def made(request: pytest.FixtureRequest, desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    found: Bench = importlib.import_module(f"vault_{request.param}").open_case(desk, tmp_path_factory.mktemp("vault"))
    yield found
    found.end()


@pytest.fixture
async def bench(made: Bench, tmp_path: Path) -> AsyncIterator[Bench]:
    """Each test begins with no tickets, on the chain as it was."""
    snapshot = made.desk.rpc.call("evm_snapshot")
    made.begin(tmp_path)
    yield made
    await made.stop()
    made.desk.rpc.call("evm_revert", snapshot)


async def test_a_payment_happens_once_however_often_it_is_asked_for(bench: Bench) -> None:
    vault = await bench.opened()
    before = bench.paid()
    tickets = await asyncio.gather(*(vault.propose("rent", bench.pay(600)) for _ in range(8)))
    assert all(same(tickets[0], one) for one in tickets)
    assert bench.filed() == 1
    assert (bench.paid() - before) == (600 if bench.is_prompt else 0)
    await bench.agree(vault, tickets[0])
    ticket = await settled(vault, tickets[0])
    assert (ticket.state, bench.paid() - before) == ("done", 600)
    assert len(ticket.tx_hash) == 66
    again = await bench.opened()
    assert (await again.propose("rent", bench.pay(600))).state == "done"
    assert (await settled(again, ticket)) == ticket
    assert bench.paid() - before == 600


async def test_a_ticket_says_what_it_does(bench: Bench) -> None:
    ticket = await (await bench.opened()).propose("rent", bench.pay(600))
    assert ticket.meaning == (f"transfer 0.0006 USD to {FRIEND}",)
    assert (ticket.account, ticket.kind, ticket.request) == ("cold", bench.kind, "rent")
    assert ticket.expires_ns == ticket.created_ns + LASTS_S * 10**9


async def test_the_same_name_for_something_else_is_refused(bench: Bench) -> None:
    vault = await bench.opened()
    await vault.propose("rent", bench.pay(600))
    with pytest.raises(SignerError, match="for something else"):
        await vault.propose("rent", bench.pay(601))
    assert bench.filed() == 1


async def test_nobody_is_paid_whom_no_rule_names(bench: Bench) -> None:
    vault = await bench.opened()
    for calls in (bench.pay(5, STRANGER), bench.pay(0), ()):
        with pytest.raises(SignerError) as caught:
            await vault.propose("rent", calls)
        assert caught.value.exit_code == 3
        assert "\n" not in str(caught.value)
    assert (bench.filed(), bench.paid(STRANGER)) == (0, 0)


async def test_a_window_is_shared_by_requests_and_a_restart(bench: Bench) -> None:
    vault = await bench.opened()
    asked = await asyncio.gather(*(vault.propose(f"part {n}", bench.pay(300)) for n in range(8)), return_exceptions=True)
    assert sum(not isinstance(one, SignerError) for one in asked) == WINDOW_MAX // 300
    vault = await bench.opened()
    with pytest.raises(SignerError, match=r"0\.0001 USD are left"):
        await vault.propose("more", bench.pay(300))
    bench.later(WINDOW_S)
    assert await vault.propose("more", bench.pay(300))


async def test_what_is_taken_back_never_happens_and_gives_its_room_back(bench: Bench) -> None:
    vault, before = await bench.opened(), bench.paid()
    ticket = await vault.propose("rent", bench.pay(WINDOW_MAX))
    if bench.is_prompt:
        with pytest.raises(SignerError, match="cannot be taken back"):
            await vault.refuse(ticket, "not this month")
        return
    ticket = await vault.refuse(ticket, "not this month")
    for _ in range(3):
        if ticket.state == "refused":
            break
        await bench.agree(vault, ticket)  # to nothing in its place, where others may have seen it
        ticket = await settled(vault, ticket)
    assert (ticket.state, ticket.reason, bench.paid() - before) == ("refused", "not this month", 0)
    assert (await vault.propose("rent", bench.pay(WINDOW_MAX))).state == "refused", "once and for all"
    other = await vault.propose("food", bench.pay(WINDOW_MAX))
    await bench.agree(vault, other)
    assert (await settled(vault, other)).state == "done"


async def test_people_who_take_too_long_are_not_waited_for(bench: Bench) -> None:
    vault, before = await bench.opened(), bench.paid()
    ticket = await vault.propose("rent", bench.pay(600))
    if bench.is_prompt:
        return
    bench.later(LASTS_S)
    ticket = await vault.poll(ticket)
    assert ticket.state in ("expired", "refused")
    assert ticket.reason
    assert bench.paid() == before
    if ticket.state == "expired":
        ticket = await vault.refuse(ticket, "too late")
        if ticket.state != "refused":
            await bench.agree(vault, ticket)
            ticket = await settled(vault, ticket)
    assert (ticket.state, bench.paid() - before) == ("refused", 0)


async def test_away_is_unavailable_and_nothing_is_lost(bench: Bench) -> None:
    vault, before = await bench.opened(), bench.paid()
    ticket = await vault.propose("rent", bench.pay(600))
    other: Vault = await bench.opened()
    async with bench.elsewhere():  # another process has its turn
        for attempt in (other.poll(ticket), other.propose("food", bench.pay(1))):
            with pytest.raises(SignerUnavailableError) as caught:
                await attempt
            assert caught.value.exit_code == 4
    await bench.agree(other, ticket)
    assert (await settled(other, ticket)).state == "done"
    assert bench.paid() - before == 600


@pytest.mark.parametrize("is_answer", [False, True])
async def test_what_was_lost_on_its_way_happens_once(bench: Bench, is_answer: bool) -> None:
    """Whether the transaction was lost or only its answer: the same bytes are sent again, also after a restart."""
    bench.lossy, before = is_answer, bench.paid()
    vault = await bench.opened()
    ticket = await vault.propose("rent", bench.pay(600))
    await bench.agree(vault, ticket)
    bench.lossy = None
    vault = await bench.opened()
    ticket = await settled(vault, await vault.propose("rent", bench.pay(600)))
    assert (ticket.state, bench.paid() - before) == ("done", 600)


async def test_a_ticket_is_its_owner_s_and_a_damaged_one_is_refused(bench: Bench) -> None:
    vault = await bench.opened()
    ticket = await vault.propose("rent", bench.pay(600))
    (path,) = (bench.folder / "tickets").glob("*.json")
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    text = path.read_text()
    assert not [canary for canary in bench.canaries if canary in text]
    path.write_text(text[:-9])
    for attempt in (vault.poll(ticket), vault.propose("rent", bench.pay(600))):
        with pytest.raises(SignerError, match="damaged"):
            await attempt


async def test_it_is_named_and_hides(bench: Bench) -> None:
    vault = await bench.opened()
    assert vault.custody.tier in TIERS
    assert vault.custody.kind == bench.kind
    assert vault.address.startswith("0x")
    assert not [canary for canary in bench.canaries if canary in repr(vault)]
    assert not hasattr(vault, "__dict__")
