"""What the settings of every kind of custody have: nothing unknown, and the address that the key must turn out to have."""

from pydantic import BaseModel, ConfigDict, field_validator

from agent.domain.errors import SignerError
from agent.keys.digest import address_bytes, checksum


class Section(BaseModel):
    """`address`: the account that the key signs for. It is given here so that another key is never taken for it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    address: str

    @field_validator("address")
    @classmethod
    def _is_address(cls, value: str) -> str:
        try:
            return checksum(address_bytes(value))
        except SignerError as error:
            raise ValueError(str(error)) from None
