"""Coins between hot and cold on a real chain: swept, topped up, taken back; and how a key that may be known is left behind."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import account_kit as kit
import msgspec
import pytest
from treasury_desk import HOT, OWNER, PAPER, PERMIT2, ROUTER, RULES, SAFE_KEY, TreasuryDesk

from agent.app import RealClock
from agent.config import Loaded, load
from agent.domain.errors import ConfigError, RefusedError, SignerError, UsageError
from agent.keys.documents import digest_of, read_request
from agent.keys.secrets import Secret
from agent.offline import export, sign_offline, take_in, understood
from agent.ports import Ticket
from agent.simulation.chain.compile import permit2
from agent.simulation.chain.deploy import CREATE2_DEPLOYER, PERMIT2_SALT
from agent.simulation.chain.rpc import calldata
from agent.treasurer import Done, balances, leave, move, pay, poll, refuse, replace_owner, revoke, tickets
from agent.treasury.targets import Kind
from agent.vaults import accounts_of, vault_rows

pytestmark = pytest.mark.chain
CLOCK, PASSWORD = RealClock(), Secret("a password of the tests")
NEW = kit.account("new hot").address
UNLIMITED = 2**160 - 1


@pytest.fixture(scope="module")
def started() -> Iterator[TreasuryDesk]:
    with kit.running() as chain:
        yield TreasuryDesk(chain)


@pytest.fixture
def desk(started: TreasuryDesk) -> Iterator[TreasuryDesk]:
    snapshot = started.rpc.call("evm_snapshot")
    yield started
    started.rpc.call("evm_revert", snapshot)
    started.deployer.resume()


@pytest.fixture
def loaded(desk: TreasuryDesk, tmp_path: Path) -> Loaded:
    return load(desk.settings(tmp_path))


async def over(loaded: Loaded, ticket: Ticket | None) -> Ticket:
    """Anvil mines a moment after it answers."""
    assert ticket is not None
    for _ in range(100):
        if ticket.state != "sent":
            break
        (ticket,) = await poll(loaded, CLOCK, None, {ticket.id})
    return ticket


async def moved(loaded: Loaded, kind: Kind, *, is_rehearsal: bool = False) -> list[Done]:
    return await move(loaded, CLOCK, kind, None, is_rehearsal=is_rehearsal)


async def signed(loaded: Loaded, desk: TreasuryDesk, ticket: Ticket, folder: Path, key: str = "safe key") -> Ticket:
    """A file out, read and signed on a machine with settings and a keystore of its own, and a file in."""
    raw, _ = await export(loaded, CLOCK, ticket.id, None)
    there = folder / "offline"
    there.mkdir(exist_ok=True)
    desk.keep(there, key)
    elsewhere = load(desk.settings(there))
    found, account, _ = understood(elsewhere, raw)
    name = key.replace(" ", "-")
    answer = await asyncio.to_thread(sign_offline, elsewhere, CLOCK, found, account, name, PASSWORD)
    return await over(loaded, await take_in(loaded, CLOCK, answer, None))


# -- between the tiers -------------------------------------------------------------------------------------------------


async def test_what_is_above_the_ceiling_goes_to_the_cold_account_once(desk: TreasuryDesk, loaded: Loaded) -> None:
    before = desk.usd(desk.safe)
    (rehearsed,) = await moved(loaded, "sweep", is_rehearsal=True)
    assert (rehearsed.amount, rehearsed.ticket) == ("5", None)
    assert desk.usd(HOT) == 10**7
    (done,) = await moved(loaded, "sweep")
    ticket = await over(loaded, done.ticket)
    assert (ticket.state, ticket.meaning) == ("done", (f"transfer 5 USD to {desk.safe.lower()}",))
    assert (desk.usd(HOT), desk.usd(desk.safe) - before) == (5 * 10**6, 5 * 10**6)
    assert await moved(loaded, "sweep") == []
    assert desk.nonce(HOT) == 1
    desk.deployer.invoke(desk.token, "mint(address,uint256)", HOT, 10**7)
    desk.deployer.settle()
    (again,) = await moved(loaded, "sweep")
    assert again.ticket is not None
    assert again.ticket.request.endswith("#2")


async def test_what_is_below_the_floor_waits_for_people_and_is_asked_for_once(
    desk: TreasuryDesk, loaded: Loaded, tmp_path: Path
) -> None:
    desk.send("hot", desk.token, bytes.fromhex(calldata("transfer(address,uint256)", kit.SOMEBODY, 9 * 10**6)[2:]))
    (first,) = await moved(loaded, "top_up")
    assert first.ticket is not None
    assert first.ticket.state == "waiting"
    assert first.ticket.reason.startswith("1 of 2 owners agree"), "the owner whose key is here has signed"
    (second,) = await moved(loaded, "top_up")
    assert second.ticket is not None
    assert (second.ticket.id, second.is_new, len(tickets(loaded, CLOCK))) == (first.ticket.id, False, 1)
    ticket = await signed(loaded, desk, first.ticket, tmp_path)
    assert (ticket.state, desk.usd(HOT)) == ("done", 5 * 10**6)
    assert await moved(loaded, "top_up") == []
    assert tickets(loaded, CLOCK) == []


async def test_a_top_up_takes_what_is_there(desk: TreasuryDesk, loaded: Loaded) -> None:
    for name, keep in (("hot", 0), ("safe", 10**6)):
        holder = HOT if name == "hot" else desk.safe
        desk.rpc.call("anvil_impersonateAccount", holder)
        data = calldata("transfer(address,uint256)", kit.SOMEBODY, desk.usd(holder) - keep)
        tx_hash = desk.rpc.call("eth_sendTransaction", {"from": holder, "to": desk.token, "data": data})
        kit.wait_for_receipt(desk.rpc, tx_hash)
    (done,) = await moved(loaded, "top_up", is_rehearsal=True)
    assert (done.amount, done.move.missing) == ("1", 4 * 10**6)


async def test_one_view_by_tier(desk: TreasuryDesk, loaded: Loaded) -> None:
    held = await balances(loaded)
    assert [one.tier for one in held] == sorted((one.tier for one in held), key=("hot", "warm", "cold").index)
    usd = {one.account: one.text for one in held if one.coin == "USD"}
    assert usd == {"hot": "10", "cold": "10", "paper": "10"}
    rows = {row.name: (row.kind, row.tier, row.latency, row.used_by) for row in vault_rows(loaded)}
    assert rows == {
        "hot": ("wallet", "hot", "seconds", "treasury"),
        "cold": ("safe", "cold", "people", "treasury"),
        "owner": ("keystore", "hot", "microseconds", "cold"),
        "paper": ("offline", "cold", "people", "treasury"),
    }


async def test_nobody_else_is_paid_and_the_day_has_an_end(desk: TreasuryDesk, loaded: Loaded) -> None:
    with pytest.raises(SignerError, match="no rule allows to transfer USD to 0xa1a1"):
        await pay(loaded, CLOCK, "hot", "USD", "1", kit.SOMEBODY, "pay one", None)
    with pytest.raises(SignerError, match="allows 5000 USD in 86400 s"):
        await pay(loaded, CLOCK, "hot", "USD", "5001", "cold", "pay two", None)
    with pytest.raises(UsageError, match="has no coin"):
        await pay(loaded, CLOCK, "hot", "DOGE", "1", "cold", "pay three", None)
    done = await over(loaded, await pay(loaded, CLOCK, "hot", "ETH", "0.5", "paper", "pay gas", None))
    assert (done.state, done.meaning) == ("done", (f"transfer 0.5 ETH to {PAPER.lower()}",))


def test_settings_that_are_wrong_say_what_to_do(desk: TreasuryDesk, tmp_path: Path) -> None:
    good = desk.settings(tmp_path).read_text()
    for old, new, told in (
        ('kind = "offline"', 'kind = "paper"', "there is no kind"),
        ('coin = "USD"\nhot = "hot"', 'coin = "USD"\nhot = "warm"', "name an account 'warm'"),
        ('venue = "pools"\ntier = "hot"', 'venue = "pool"\ntier = "hot"', "is no venue on a chain"),
        (f'address = "{PAPER}"', f'address = "{HOT}"', "are the same address"),
        ('tier = "hot"', 'tier = "tepid"', "tier"),
        ('tier = "hot"', 'tier = "hot"\nkeys = [{ keystore = "owner", password = "ask" }]', "keys and sender are of a Safe"),
    ):
        path = tmp_path / "wrong.toml"
        assert old in good
        path.write_text(good.replace(old, new, 1))
        with pytest.raises(ConfigError, match=told):
            accounts_of(load(path))


# -- the machine without a network -------------------------------------------------------------------------------------


async def test_an_offline_address_pays_what_its_own_machine_allows(desk: TreasuryDesk, loaded: Loaded, tmp_path: Path) -> None:
    ticket = await pay(loaded, CLOCK, "paper", "USD", "3", "cold", "pay back", None)
    assert ticket.state == "waiting"
    ticket = await signed(loaded, desk, ticket, tmp_path, "paper")
    assert (ticket.state, desk.usd(PAPER)) == ("done", 7 * 10**6)


async def test_what_was_changed_on_its_way_is_not_signed(desk: TreasuryDesk, loaded: Loaded, tmp_path: Path) -> None:
    ticket = await pay(loaded, CLOCK, "cold", "USD", "3", "hot", "pay hot", None)
    raw, _ = await export(loaded, CLOCK, ticket.id, None)
    digest = digest_of(read_request(raw).source)
    for old, new in ((HOT[2:].lower(), "57" * 20), (digest[-8:], "00000000"), ('"nonce": "0"', '"nonce": "1"')):
        changed = raw.replace(old.encode(), new.encode())
        assert changed != raw
        with pytest.raises(SignerError, match="it was changed on its way"):
            understood(loaded, changed)
    with pytest.raises(SignerError, match="no request file"):
        understood(loaded, raw[:-9])
    strict = load(desk.settings(tmp_path, rules=RULES.replace('to = ["hot", "cold", "paper"]', 'to = ["paper"]')))
    found, account, _ = understood(loaded, raw)
    with pytest.raises(SignerError, match="no rule allows"):
        understood(strict, raw)
    with pytest.raises(SignerError, match="no rule allows"):
        sign_offline(strict, CLOCK, msgspec.structs.replace(found, signers=(OWNER,)), account, "owner", PASSWORD)


async def test_a_signature_for_something_else_is_not_taken(desk: TreasuryDesk, loaded: Loaded, tmp_path: Path) -> None:
    first = await pay(loaded, CLOCK, "cold", "USD", "3", "hot", "pay one", None)
    second = await pay(loaded, CLOCK, "cold", "USD", "3", "hot", "pay two", None)
    raw, _ = await export(loaded, CLOCK, first.id, None)
    desk.keep(tmp_path, "safe key")
    found, account, _ = understood(loaded, raw)
    answer = sign_offline(loaded, CLOCK, found, account, "safe-key", PASSWORD)
    with pytest.raises(SignerError, match="for another request"):
        await take_in(loaded, CLOCK, answer.replace(first.id.encode(), second.id.encode()), None)
    with pytest.raises(SignerError, match="is not asked"):
        await take_in(loaded, CLOCK, answer.replace(SAFE_KEY.encode(), OWNER.encode()), None)
    assert (await over(loaded, await take_in(loaded, CLOCK, answer, None))).state == "done"


# -- rotation, as the runbook has it ---------------------------------------------------------------------------------------


def permit2_of(desk: TreasuryDesk, owner: str) -> int:
    found: int = desk.read(
        ["uint160", "uint48", "uint48"], PERMIT2, "allowance(address,address,address)", owner, desk.token, ROUTER
    )
    return found


async def test_the_drill_a_hot_key_that_may_be_known_is_left_behind(desk: TreasuryDesk, loaded: Loaded, tmp_path: Path) -> None:
    """It gave approvals to Permit2 and a router; it is an owner of the Safe. In the end it holds and may nothing."""
    put_permit2(desk)
    desk.send("hot", desk.token, bytes.fromhex(calldata("approve(address,uint256)", PERMIT2, UNLIMITED)[2:]))
    granted = calldata("approve(address,address,uint160,uint48)", desk.token, ROUTER, UNLIMITED, 2**48 - 1)
    desk.send("hot", PERMIT2, bytes.fromhex(granted[2:]))
    assert permit2_of(desk, HOT) == UNLIMITED
    assert desk.allowed(HOT, PERMIT2) == UNLIMITED

    gone = await revoke(loaded, CLOCK, "hot", (), "", None)
    assert [(await over(loaded, one)).state for one in gone] == ["done", "done"]
    assert (permit2_of(desk, HOT), desk.allowed(HOT, PERMIT2)) == (0, 0)
    with pytest.raises(RefusedError, match="nothing to take back"):
        await revoke(loaded, CLOCK, "hot", (), "", None)

    left = await leave(loaded, CLOCK, "hot", "cold", None)
    assert [(await over(loaded, one)).state for one in left] == ["done", "done"]
    assert desk.usd(HOT) == 0
    assert desk.wei(HOT) < 10**16

    with pytest.raises(SignerError, match="no rule allows to make"):
        await replace_owner(loaded, CLOCK, "cold", HOT, NEW, None)
    allow = f"""
[[policy]]
name = "the new key"
effect = "allow"
acts = ["owners"]
to = ["{NEW}"]
"""
    desk.deployer.send(HOT, "0x", gas=21_000, value=10**18)  # it still sends what the owners agreed to
    desk.deployer.settle()
    loaded = load(desk.settings(tmp_path, rules=RULES + allow))
    ticket = await replace_owner(loaded, CLOCK, "cold", HOT, NEW, None)
    there = tmp_path / "offline"
    there.mkdir()
    desk.keep(there, "safe key")
    raw, _ = await export(loaded, CLOCK, ticket.id, None)
    elsewhere = load(desk.settings(there, rules=RULES + allow))
    found, account, meaning = understood(elsewhere, raw)
    assert meaning[0] == f"make {NEW.lower()} an owner of {desk.safe.lower()}"
    answer = sign_offline(elsewhere, CLOCK, found, account, "safe-key", PASSWORD)
    assert (await over(loaded, await take_in(loaded, CLOCK, answer, None))).state == "done"
    owners = desk.read(["address[]"], desk.safe, "getOwners()")
    assert NEW.lower() in owners
    assert HOT.lower() not in owners


def put_permit2(desk: TreasuryDesk) -> None:
    """As on public chains, at its own address."""
    code = bytes.fromhex(permit2().bytecode[2:])
    desk.deployer.send(CREATE2_DEPLOYER, "0x" + (PERMIT2_SALT + code).hex(), gas=4_000_000)
    desk.deployer.settle()


async def test_a_ticket_that_is_refused_says_so_in_the_list(desk: TreasuryDesk, loaded: Loaded) -> None:
    ticket = await pay(loaded, CLOCK, "paper", "USD", "3", "cold", "pay back", None)
    assert [one.id for one in tickets(loaded, CLOCK)] == [ticket.id]
    assert (await refuse(loaded, CLOCK, ticket.id, "a mistake", None)).state == "refused"
    assert tickets(loaded, CLOCK) == []
    assert [one.reason for one in tickets(loaded, CLOCK, is_all=True)] == ["a mistake"]


async def test_an_account_that_is_away_says_so_and_the_rest_goes_on(desk: TreasuryDesk, loaded: Loaded, tmp_path: Path) -> None:
    ticket = await pay(loaded, CLOCK, "paper", "USD", "3", "cold", "pay back", None)
    path = tmp_path / "isthmus.toml"
    path.write_text(path.read_text().replace(desk.rpc.url, "http://127.0.0.1:1"))
    (found,) = await poll(load(path), CLOCK, None)
    assert (found.id, found.state) == (ticket.id, "waiting")
    assert "127.0.0.1:1" in found.reason
