"""What the signer suite needs to know of a kind of custody. Each kind has a file `key_<kind>.py` here with `open_case(folder)`."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from agent.keys.remote import PATIENCE_S, Key
from agent.keys.secrets import Secrets

KEY_HEX = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"
CHAIN = 31337
PERMIT2, ROUTER, TOKEN = "0x000000000022D473030F116dDEE9F6B43aC78BA3", "0x" + "a1" * 20, "0x" + "b1" * 20


class Far(msgspec.Struct, frozen=True):
    """A key that lies elsewhere, for real: a process, a service or a module that holds it and answers.

    `settings`: the least that its `Config` accepts. `canaries`: texts that nothing may ever show. `away` and `back`: stop what
    holds the key and start it again; None where it lives in our own process and cannot leave. `many`: signatures that a test may
    ask for in a row, within `patience_s` each; `warm` prepares that many to be had at once, where that can be done.
    """

    module: ModuleType
    folder: Path
    address: str
    settings: dict[str, Any]
    canaries: tuple[str, ...] = ()
    away: Callable[[], None] | None = None
    back: Callable[[], None] | None = None
    many: int = 12
    patience_s: float = PATIENCE_S
    warm: Callable[[Key], Awaitable[None]] | None = None

    async def open(self, **changes: Any) -> Key:
        """Its key, as the agent opens it."""
        config = self.module.Config.model_validate(self.settings | changes)
        key: Key = await self.module.open_key("far", config, Secrets(self.folder))
        return key
