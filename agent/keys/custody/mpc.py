"""`kind = "mpc"`: three parties hold one key, two of them sign. This agent is one; any one cosigner that is up is the other.

No machine ever holds the key. Each cosigner is `isthmus cosigner serve` with a policy of its own; see docs/keys.md for the set-up.
"""

from typing import Literal

from pydantic import Field

from agent.domain.errors import SignerError
from agent.keys.remote import Key
from agent.keys.secrets import Secrets
from agent.keys.section import Section
from agent.ports import Custody

CUSTODY = Custody("mpc", "warm", "milliseconds")


class Config(Section):
    """`home`: the folder of this agent's party, relative to the settings file."""

    kind: Literal["mpc"] = "mpc"
    home: str
    password: str = Field(description="of the home; env:NAME, file:PATH or keyring:SERVICE/NAME")
    cosigners: tuple[str, ...] = Field(default=(), strict=False, max_length=15, description="names, first choice first; empty: all")
    pool: int = Field(default=8, ge=0, le=64, description="presignatures that wait; each is good for one signature at once")


async def open_key(name: str, config: Config, secrets: Secrets) -> Key:
    """Raises SignerError where the engine is not built or the share is of another key, SecretError, SignerUnavailableError."""
    from agent.keys.cosigner.key import open_home, open_shared

    home = await open_home(secrets.path(config.home), secrets.read(config.password))
    try:
        return await open_shared(name, config.address, CUSTODY, home, config.cosigners, config.pool)
    except SignerError:
        home.close()
        raise
