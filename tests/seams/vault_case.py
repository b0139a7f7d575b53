"""What the vault suite needs to know of a kind of vault. Each has a file `vault_<kind>.py` here with `open_case(chain, folder)`."""

import fcntl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from account_kit import Chain as Desk

from agent.chains.rpc import Rpc
from agent.domain.errors import OutcomeUnknown
from agent.domain.plan import Call
from agent.keys.accounts.kinds import Kind
from agent.keys.bounds import KeyPolicy, Rule
from agent.keys.filing import Means
from agent.keys.spent import Spent
from agent.keys.tickets import Tickets
from agent.keys.transfers import TRANSFER, treasury_policy
from agent.ports import Ticket, Vault
from agent.simulation.chain.deploy import PERMIT2

FRIEND, STRANGER = "0x" + "f1" * 20, "0x" + "57" * 20
WINDOW_S, WINDOW_MAX = 3_600, 1_000
LASTS_S = 600
GWEI = 10**9


class SetClock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.ns = 1_800_000_000 * 10**9

    def now_ns(self) -> int:
        return self.ns

    async def sleep(self, seconds: float) -> None:
        self.ns += int(seconds * 10**9)


class Lossy:
    """A line to the chain on which the next transaction is lost, or its answer is."""

    def __init__(self, chain: Rpc, *, is_answer: bool) -> None:
        self._chain, self._is_answer, self.chain_id, self.lost = chain, is_answer, chain.chain_id, 0

    async def call(self, method: str, *params: Any) -> Any:
        return await self._chain.call(method, *params)

    async def send_raw(self, raw: bytes) -> str:
        if self.lost:
            return await self._chain.send_raw(raw)
        self.lost += 1
        if self._is_answer:
            await self._chain.send_raw(raw)
        raise OutcomeUnknown("nobody knows")

    async def close(self) -> None:
        await self._chain.close()


class Bench:
    """One vault of a kind with everything around it. `open`: the vault, as after a restart; `agree`: what the people do."""

    def __init__(self, desk: Desk, folder: Path, module: Any) -> None:
        self.desk, self.folder, self.module, self.clock = desk, folder, module, SetClock()
        self.kind: str = module.__name__.rpartition(".")[2]
        self.canaries: tuple[str, ...] = ()
        self.open: Callable[[], Awaitable[Vault]]
        self.agree: Callable[[Vault, Ticket], Awaitable[None]]
        self.end: Callable[[], None] = lambda: None
        self.begin_kind: Callable[[], None] = lambda: None
        self.chains: list[Rpc] = []
        self.stand_in: Any = None
        self.vaults: list[Vault] = []
        self.lossy: bool | None = None  # whether the answer is lost, or what was sent; None: neither
        self.is_prompt = False  # it waits for nobody

    def begin(self, folder: Path) -> None:
        """With no tickets, in another folder."""
        self.folder, self.clock, self.chains, self.vaults, self.lossy = folder, SetClock(), [], [], None
        self.begin_kind()

    async def opened(self) -> Any:
        """The vault, closed at the end of the test."""
        return self.kept(await self.open())

    def kept(self, vault: Any) -> Any:
        self.vaults.append(vault)
        return vault

    async def stop(self) -> None:
        for one in (*self.vaults, *self.chains):
            await one.close()

    @asynccontextmanager
    async def elsewhere(self) -> AsyncIterator[None]:
        """As if another process worked on the tickets."""
        with (self.folder / "tickets" / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    async def chain(self) -> Rpc:
        rpc = Rpc(self.desk.rpc.url, self.desk.chain_id)
        await rpc.open()
        self.chains.append(rpc)
        return rpc

    async def means(self, owner: str, account: Kind | None = None) -> Means:
        spent = Spent(self.folder / "spent.jsonl", self.clock)
        tickets = Tickets(self.folder / "tickets", self.clock)
        chain: Any = await self.chain()
        line = chain if self.lossy is None else Lossy(chain, is_answer=self.lossy)
        return Means("cold", self.kind, tickets, self.policy(owner, account), line, spent, LASTS_S)

    def policy(self, owner: str, account: Kind | None = None) -> KeyPolicy:
        rule = Rule(
            "to a friend", "allow", frozenset({"transfer"}), window_s=WINDOW_S, window_max=WINDOW_MAX, to=frozenset({FRIEND})
        )
        tokens, names = frozenset({self.desk.token}), {self.desk.token.lower(): ("USD", 6)}
        return treasury_policy(self.desk.chain_id, owner, PERMIT2, tokens, 100 * GWEI, 900_000, (rule,), names, account)

    def pay(self, units: int, to: str = FRIEND) -> Sequence[Call]:
        return (Call(self.desk.token, TRANSFER.data(to, units)),)

    def paid(self, to: str = FRIEND) -> int:
        found: int = self.desk.read(["uint256"], self.desk.token, "balanceOf(address)", to)
        return found

    def filed(self) -> int:
        return len(list((self.folder / "tickets").glob("*.json")))

    def later(self, seconds: int) -> None:
        self.clock.ns += seconds * 10**9


async def settled(vault: Vault, ticket: Ticket, tries: int = 100) -> Ticket:
    """Asked until it is over, or as often as `tries`."""
    for _ in range(tries):
        ticket = await vault.poll(ticket)
        if ticket.state in ("done", "refused"):
            break
    return ticket


def same(one: Ticket, other: Ticket) -> bool:
    """But for how far it is."""
    plain = [msgspec.structs.replace(two, state="waiting", reason="", tx_hash="") for two in (one, other)]
    return plain[0] == plain[1]
