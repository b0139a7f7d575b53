"""How the signer suite reaches a key of kind `mpc`: our share here, and two real `isthmus cosigner serve`; one of them signs."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cosigner_kit import open_group
from key_case import Far

from agent.keys.custody import mpc
from agent.simulation.cosigners import NAMES, wallet_settings

MANY = 2  # each signature costs a presignature, which takes more than a second of both cores


async def warm(key: Any) -> None:
    await key.warm(MANY)


@contextlib.contextmanager
def open_case(folder: Path) -> Iterator[Far]:
    with open_group() as (group, key):
        shown = {**wallet_settings(key), "pool": 0, "cosigners": ["first", "second"]}
        password = Path(key.password.removeprefix("file:")).read_text(encoding="utf-8")

        def away() -> None:
            for name in NAMES[1:]:
                group.kill(name)

        def back() -> None:
            for name in NAMES[1:]:
                group.start(name)

        yield Far(mpc, folder, key.address, shown, (password,), away, back, many=MANY, patience_s=60.0, warm=warm)
