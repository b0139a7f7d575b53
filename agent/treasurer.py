"""What a treasury does with its accounts: balances by tier, sweeps and top-ups, payments, rights taken away, owners replaced.

Each is a request to a vault under a name that follows from what it is for: while one is under way it is not asked for again.
"""

import contextlib
from collections.abc import AsyncIterator, Collection, Sequence
from typing import NamedTuple

import msgspec

from agent.config import Loaded
from agent.domain.amount import parse_units, plain
from agent.domain.errors import ChainError, ConfigError, RefusedError, SignerError, UsageError
from agent.domain.plan import Call
from agent.gateways import local
from agent.keys.accounts.roles import role_key
from agent.keys.bounds import norm
from agent.keys.digest import address_bytes, checksum
from agent.keys.sending import TIP_WEI, asked, number, view, word
from agent.keys.tickets import Filed
from agent.keys.transfers import APPROVE, ASSIGN_ROLES, LOCKDOWN, NATIVE, SWAP_OWNER, TRANSFER
from agent.ports import Clock, Ticket
from agent.treasury.targets import Bound, Kind, Move, moves
from agent.vaults import AccountSection, Opened, account_named, accounts_of, opened_vault, tickets_of, treasury_of
from agent.wallet import Ask

SENTINEL = "0x" + "00" * 19 + "01"  # the head of a Safe's list of owners


class Held(NamedTuple):
    """What one account has of one coin."""

    account: str
    tier: str
    kind: str
    address: str
    coin: str
    units: int
    decimals: int

    @property
    def text(self) -> str:
        return plain(self.units, self.decimals)


class Done(NamedTuple):
    """A move, and the ticket that is under way for it; none in a rehearsal, or when there is nothing to move."""

    move: Move
    amount: str
    ticket: Ticket | None
    is_new: bool


# -- looking -----------------------------------------------------------------------------------------------------------


async def balances(loaded: Loaded) -> list[Held]:
    """Of every account and coin, from the chain, hot accounts first. Raises ChainError."""
    from agent.chains.rpc import connect

    found = []
    for account in sorted(accounts_of(loaded).values(), key=lambda one: (("hot", "warm", "cold").index(one.tier), one.name)):
        section = account.section
        chain = await connect(section.rpc_url, section.chain_id, section.timeout_s)
        try:
            for coin, (address, decimals) in coins(account).items():
                if address == NATIVE:
                    units = await number(chain, "eth_getBalance", account.address, "latest")
                else:
                    (units,) = await view(chain, address, "balanceOf(address)", ["uint256"], word(account.address))
                found.append(Held(account.name, account.tier, account.kind, account.address, coin, units, decimals))
        finally:
            await chain.close()
    return found


def coins(account: AccountSection) -> dict[str, tuple[str, int]]:
    """symbol -> (address, decimals) of what the account may pay in; the coin for gas too."""
    section = account.section
    listed = {token.symbol: (token.address, token.decimals) for token in section.tokens}
    return {section.native.symbol: (NATIVE, section.native.decimals)} | listed


def bounds_of(loaded: Loaded) -> list[Bound]:
    """Raises ConfigError for bounds that contradict themselves, or accounts on two chains."""
    accounts, found = accounts_of(loaded), []
    for one in treasury_of(loaded).bounds:
        hot, cold = accounts[one.hot], accounts[one.cold]
        where = f"{loaded.path.name}: bounds of {one.coin} in {one.hot}"
        if one.coin not in coins(hot) or hot.section.chain_id != cold.section.chain_id:
            raise ConfigError(f"{where}: no such coin there, or {one.cold} is on another chain; correct it")
        decimals = coins(hot)[one.coin][1]
        floor, target, ceiling = (parse_units(text, decimals, where) for text in (one.floor, one.target, one.ceiling))
        if not floor <= target <= ceiling:
            raise ConfigError(f"{where}: floor, target and ceiling must not be below each other in that order; correct them")
        found.append(Bound(one.coin, one.hot, one.cold, floor, target, ceiling))
    return found


def tickets(loaded: Loaded, clock: Clock, *, is_all: bool = False) -> list[Ticket]:
    """Those that are not over, or all; the oldest first."""
    found = (one.ticket for one in tickets_of(loaded, clock).all())
    return [one for one in found if is_all or one.state not in ("done", "refused")]


@contextlib.asynccontextmanager
async def asking(loaded: Loaded, clock: Clock, name: str, ask: Ask | None) -> AsyncIterator[Opened]:
    """An account that may be asked: the wallet's own numbers are the agent's while it runs."""
    is_running = local.is_running(loaded.home)
    if account_named(loaded, name).kind == "wallet" and is_running:
        raise UsageError(f"{name} is the wallet that an agent trades with now; stop the agent in {loaded.home}, and ask again")
    async with opened_vault(loaded, clock, name, ask, with_wallet=not is_running) as opened:
        yield opened


# -- moving ------------------------------------------------------------------------------------------------------------


async def move(loaded: Loaded, clock: Clock, kind: Kind, ask: Ask | None, *, is_rehearsal: bool) -> list[Done]:
    """Sweep what is above its ceiling, or top up what is below its floor. One that is under way is looked at, not asked again."""
    bounds = bounds_of(loaded)
    names = {f"{kind} {one.coin} {' to '.join((one.hot, one.cold) if kind == 'sweep' else (one.cold, one.hot))}" for one in bounds}
    under_way = {one.ticket.id for one in tickets_of(loaded, clock).all() if _purpose(one) in names}
    if under_way and not is_rehearsal:
        await poll(loaded, clock, ask, under_way)
    before = tickets_of(loaded, clock).all()
    held = {(one.account, one.coin): one.units for one in await balances(loaded)}
    found = []
    for one in moves(bounds, held, kind):
        source, to = account_named(loaded, one.source), account_named(loaded, one.to)
        amount = plain(one.units, coins(source)[one.coin][1])
        name = f"{kind} {one.coin} {one.source} to {one.to}"
        mine = [filed for filed in before if filed.ticket.account == one.source]
        known = _under_way(mine, name)
        if known is not None or is_rehearsal or not one.units:
            found.append(Done(one, amount, known.ticket if known else None, is_new=False))
            continue
        async with asking(loaded, clock, one.source, ask) as opened:
            ticket = await _asked(opened, name, [payment(source, one.coin, to.address, one.units)], mine)
        found.append(Done(one, amount, ticket, is_new=True))
    return found


async def pay(loaded: Loaded, clock: Clock, name: str, coin: str, text: str, to: str, request: str, ask: Ask | None) -> Ticket:
    """Pay from an account to another by its name, or to an address. The same `request` is paid once."""
    account = account_named(loaded, name)
    if coin not in coins(account):
        raise UsageError(f"{name} has no coin {coin[:16]!r}; name one of {', '.join(coins(account))}")
    units = parse_units(text, coins(account)[coin][1], coin)
    known = accounts_of(loaded)
    address = known[to].address if to in known else checksum(address_bytes(to))
    async with asking(loaded, clock, name, ask) as opened:
        return await opened.vault.propose(request, [payment(account, coin, address, units)])


def payment(account: AccountSection, coin: str, to: str, units: int) -> Call:
    address = coins(account)[coin][0]
    return Call(to, b"", units) if address == NATIVE else Call(address, TRANSFER.data(to, units))


async def poll(loaded: Loaded, clock: Clock, ask: Ask | None, only: Collection[str] = ()) -> list[Ticket]:
    """Look at every ticket that is not over, or at those, and move them on. An account that is away does not stop the others."""
    waiting = [one for one in tickets(loaded, clock) if not only or one.id in only]
    found = []
    for name in dict.fromkeys(one.account for one in waiting):
        mine = [one for one in waiting if one.account == name]
        try:
            async with asking(loaded, clock, name, ask) as opened:
                found += [await _polled(opened, one) for one in mine]
        except (ChainError, SignerError, UsageError) as error:
            found += [msgspec.structs.replace(one, reason=str(error)) for one in mine]
    return found


async def refuse(loaded: Loaded, clock: Clock, ticket_id: str, reason: str, ask: Ask | None) -> Ticket:
    ticket = tickets_of(loaded, clock).find(ticket_id).ticket
    async with asking(loaded, clock, ticket.account, ask) as opened:
        return await opened.vault.refuse(ticket, reason)


# -- rights ------------------------------------------------------------------------------------------------------------


async def revoke(loaded: Loaded, clock: Clock, name: str, spenders: Sequence[str], member: str, ask: Ask | None) -> list[Ticket]:
    """Take back what Permit2, the router and `spenders` may take of an account's coins, and the roles of `member` over it."""
    async with asking(loaded, clock, name, ask) as opened:
        before = opened.means.tickets.all(name)
        calls = await _revocations(opened, spenders)
        if member:
            calls.append(_no_member(opened.account, member))
        return [await _asked(opened, f"revoke {index}", part, before) for index, part in enumerate(_parts(opened, calls))]


async def replace_owner(loaded: Loaded, clock: Clock, name: str, old: str, new: str, ask: Ask | None) -> Ticket:
    """A Safe's owner by another, whom a rule must name."""
    async with asking(loaded, clock, name, ask) as opened:
        safe, filed = opened.account.address, opened.means.tickets.all(name)
        (owners,) = await view(opened.means.chain, safe, "getOwners()", ["address[]"])
        if norm(old) not in owners:
            raise UsageError(f"{old} is no owner of {name}; it has {', '.join(owners)}")
        before = (SENTINEL, *owners)[owners.index(norm(old))]
        call = Call(safe, SWAP_OWNER.data(before, norm(old), norm(new)))
        return await _asked(opened, f"owner {norm(old)} to {norm(new)}", [call], filed)


async def leave(loaded: Loaded, clock: Clock, name: str, to: str, ask: Ask | None) -> list[Ticket]:
    """Send all that an account has to another one, coin by coin, the coin for gas last."""
    account, target = account_named(loaded, name), account_named(loaded, to)
    found = []
    async with asking(loaded, clock, name, ask) as opened:
        before = opened.means.tickets.all(name)
        held = {one.coin: one.units for one in await balances(loaded) if one.account == name}
        native = account.section.native.symbol
        for coin, units in sorted(held.items(), key=lambda one: one[0] == native):
            if coin == native and account.kind != "safe":
                units = await _without_gas(opened, target.address)
            if units > 0:
                found.append(await _asked(opened, f"leave {coin}", [payment(account, coin, target.address, units)], before))
    return found


async def _revocations(opened: Opened, spenders: Sequence[str]) -> list[Call]:
    contracts, chain, owner = opened.account.section.contracts, opened.means.chain, opened.account.address
    permit2, router, found = contracts.permit2, contracts.universal_router, []
    pairs = []
    for token in opened.account.section.tokens:
        for spender in dict.fromkeys((permit2, router, *spenders)):
            (units,) = await view(chain, token.address, "allowance(address,address)", ["uint256"], word(owner), word(spender))
            if units:
                found.append(Call(token.address, APPROVE.data(spender, 0)))
        for spender in dict.fromkeys((router, *spenders)):
            words = word(owner), word(token.address), word(spender)
            kinds = ["uint160", "uint48", "uint48"]
            units, _, _ = await view(chain, permit2, "allowance(address,address,address)", kinds, *words)
            if units:
                pairs.append((token.address, spender))
    return [*found, Call(permit2, LOCKDOWN.data(pairs))] if pairs else found


def _no_member(account: AccountSection, member: str) -> Call:
    if not account.modifier or not account.role:
        raise UsageError(f"the settings of {account.name} name no role; add modifier and role")
    return Call(account.modifier, ASSIGN_ROLES.data(member, [role_key(account.role)], [False]))


def _parts(opened: Opened, calls: list[Call]) -> list[list[Call]]:
    """All at once where the account can, else one after the other."""
    if not calls:
        raise RefusedError(f"{opened.account.name} has given no rights that are known here; nothing to take back")
    return [calls] if opened.account.kind == "safe" else [[one] for one in calls]


async def _without_gas(opened: Opened, to: str) -> int:
    """What is there now, less what sending it costs at most."""
    chain = opened.means.chain
    block = await asked(chain, "eth_getBlockByNumber", "latest", False)
    fee = 2 * int(str(block.get("baseFeePerGas", "0x0")), 16) + TIP_WEI
    gas = await number(chain, "eth_estimateGas", {"from": opened.account.address, "to": to, "value": "0x1"})
    return await number(chain, "eth_getBalance", opened.account.address, "latest") - (gas + gas // 2) * fee


def _under_way(found: Sequence[Filed], name: str) -> Filed | None:
    """The ticket for this purpose that is not over."""
    return next((one for one in found if _purpose(one) == name and one.ticket.state not in ("done", "refused")), None)


def _purpose(one: Filed) -> str:
    return one.ticket.request.rpartition(" #")[0]


async def _asked(opened: Opened, name: str, calls: Sequence[Call], before: Sequence[Filed]) -> Ticket:
    """The ticket for this purpose: the one that is under way, or a new one.

    `before`: the account's tickets as they were before anything was looked at from which the calls follow. So of two that looked at
    the same time, the second asks for the very ticket of the first.
    """
    known = _under_way(before, name)
    serial = 1 + sum(_purpose(one) == name for one in before)
    return known.ticket if known is not None else await opened.vault.propose(f"{name} #{serial}", calls)


async def _polled(opened: Opened, ticket: Ticket) -> Ticket:
    """One that cannot be looked at now stays as it is, and says why."""
    try:
        return await opened.vault.poll(ticket)
    except SignerError as error:
        return msgspec.structs.replace(ticket, reason=str(error))
