"""What the venue suite needs to know of a kind of venue. Each kind has a file `venue_<kind>.py` here with `open_case()`."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

import msgspec

from agent.domain.plan import Approved
from agent.ports import Signer, Venue


class RealClock:
    def now_ns(self) -> int:
        return time.time_ns()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Case(msgspec.Struct, frozen=True):
    """A connected venue on the sandbox, with means to trade a little.

    `settings`: the least that its `Config` accepts. `works`: an approved plan, with a new id, that will trade or take effect.
    `impossible`: approved plans that this venue cannot build. `secret`: text that nothing may ever show.
    """

    module: ModuleType
    name: str
    account: str
    venue: Venue
    signer: Signer
    settings: dict[str, Any]
    works: Callable[[], Awaitable[Approved]]
    impossible: tuple[Approved, ...]
    secret: str
