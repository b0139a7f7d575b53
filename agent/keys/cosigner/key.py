"""The far end of a wallet of kind `mpc`: our share, and the cosigners of which any one completes a signature."""

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path

from agent.domain.errors import SignatureUnknownError, SignerError, SignerUnavailableError
from agent.keys.cosigner.home import Home, account
from agent.keys.cosigner.partner import Partner
from agent.keys.secrets import Secret
from agent.keys.steps import Preimage
from agent.ports import Custody

LOOK_S = 60.0  # between looks at the pools when nothing is asked
AWAY_S = 5.0  # until a cosigner that did not answer is tried again in the background
STANDBY_MAX = 2  # presignatures that wait with a cosigner which is not the first


class MpcKey:
    """Satisfies `Key`. The first cosigner that is up signs with us; one that refuses is not asked round."""

    __slots__ = ("_filling", "_home", "_partners", "_wanted", "address", "custody", "key_id")

    def __init__(self, name: str, address: str, custody: Custody, home: Home, partners: Sequence[Partner]) -> None:
        self.key_id, self.address, self.custody = name, address, custody
        self._home, self._partners = home, tuple(partners)
        self._wanted = asyncio.Event()
        self._filling: asyncio.Task[None] | None = None

    async def signature(self, preimage: Preimage) -> bytes:
        """As `Key`. When an answer was lost the next cosigner is asked: what the first signed is nothing without our half."""
        away, lost = [], []
        self._wanted.set()
        for partner in sorted(self._partners, key=lambda one: (bool(one.fault), not one.is_up)):
            try:
                return await partner.signature(preimage)
            except SignatureUnknownError as error:
                lost.append(str(error))
            except SignerUnavailableError as error:
                away.append(str(error))
        if lost:
            raise SignatureUnknownError("; ".join(lost + away))
        raise SignerUnavailableError("; ".join(away))

    async def check(self) -> None:
        """At least one cosigner answers and holds a share of this key. Raises what the first of them says."""
        found = await asyncio.gather(*(partner.about() for partner in self._partners), return_exceptions=True)
        failures = [one for one in found if isinstance(one, BaseException)]
        if len(failures) == len(found):
            raise next((one for one in failures if not isinstance(one, SignerUnavailableError)), failures[0])

    async def health(self) -> str:
        try:
            await self.check()
        except SignerError as error:
            return str(error)
        return ""

    async def warm(self, count: int) -> None:
        """Wait until that many presignatures are there with the first cosigner that can make them."""
        for partner in self._partners:
            try:
                return await partner.warm(count)
            except SignerUnavailableError:
                continue
        return None

    def keep_warm(self) -> None:
        """Make presignatures in the background from now on, while nothing is asked: one at a time, the first cosigner's first."""
        if self._filling is None:
            self._filling = asyncio.create_task(self._keep_warm())

    @property
    def ready(self) -> int:
        """Presignatures that wait."""
        return sum(len(partner.pool) for partner in self._partners)

    async def close(self) -> None:
        """Presignatures and what the home had open are gone afterwards."""
        if self._filling is not None:
            self._filling.cancel()
            await asyncio.wait([self._filling])
        await asyncio.gather(*(partner.close() for partner in self._partners))
        self._home.close()

    async def _keep_warm(self) -> None:
        while True:
            pause_s = LOOK_S
            self._wanted.clear()
            for partner in self._partners:
                try:
                    await partner.refill()
                except SignerError:  # away, or refused: told when a signature wants it
                    pause_s = AWAY_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), pause_s)

    def __repr__(self) -> str:
        return f"MpcKey({self.address}, share=****)"

    def __reduce__(self) -> str:
        raise SignerError("a key cannot be pickled or copied")


async def open_shared(name: str, address: str, custody: Custody, home: Home, names: Sequence[str], pool: int) -> MpcKey:
    """`home`: our party's. `names`: the cosigners in the order in which they are asked (none: all others). `pool`: with the first.

    Raises SecretError, SignerError, or SignerUnavailableError when no cosigner answers.
    """
    group, ours = home.group()
    share = await asyncio.to_thread(home.share, group)
    if account(share) != address:
        raise SignerError(f"the share in {home.folder} is of {account(share)}, wallet.address is {address}; correct one")
    others = {one.name: at for at, one in enumerate(group.members) if at != ours}
    unknown = [one for one in names if one not in others]
    if unknown:
        raise SignerError(f"wallet.cosigners: {unknown[0]!r} is none of the others of the group: {', '.join(others)}")
    marks = [pool, *[min(pool, STANDBY_MAX)] * len(others)]
    chosen = names or list(others)
    partners = [Partner(home.identity, group, share, others[one], mark) for one, mark in zip(chosen, marks, strict=False)]
    key = MpcKey(name, address, custody, home, partners)
    try:
        await key.check()
    except BaseException:
        await key.close()
        raise
    key.keep_warm()
    return key


async def open_home(folder: Path, password: Secret) -> Home:
    """Raises SecretError."""
    home = Home(folder, password)
    await asyncio.to_thread(home.open)
    return home
