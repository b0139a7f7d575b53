"""`kind = "pkcs11"`: a key in a hardware module (or SoftHSM) that speaks PKCS#11 and does not give it out.

YubiHSM 2, CloudHSM, Luna and others bring a library for it. The module signs any hash for whoever has its PIN: the policy in front
of it is the agent's. Needs `pip install 'isthmus[hsm]'`. Source: PKCS #11 v2.40, mechanism CKM_ECDSA.
"""

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

from pydantic import Field

from agent.domain.errors import IsthmusError, SecretError, SignerError, SignerUnavailableError
from agent.keys.curve_point import CURVE_OID, POINT_BYTES, address_of, read_pair
from agent.keys.remote import Key, signature_of
from agent.keys.secrets import Secrets
from agent.keys.section import Section
from agent.keys.steps import Preimage
from agent.ports import Custody

CUSTODY = Custody("pkcs11", "hot", "milliseconds")
OVER = frozenset({"SessionHandleInvalid", "SessionClosed", "UserNotLoggedIn", "DeviceRemoved", "KeyHandleInvalid"})
NEEDS = "a key in a PKCS#11 module needs python-pkcs11; run: pip install 'isthmus[hsm]'"


class Config(Section):
    """`module`: the maker's library (.so), an absolute path: it is code that runs in this process."""

    kind: Literal["pkcs11"] = "pkcs11"
    module: str = Field(pattern=r"^/.+")
    token: str = Field(min_length=1, max_length=32, description="label of the token")
    label: str = Field(min_length=1, max_length=255, description="label of the key pair")
    pin: str = Field(description="env:NAME, file:PATH or keyring:SERVICE/NAME")


async def open_key(name: str, config: Config, secrets: Secrets) -> Key:
    """Raises SecretError without the library or the PIN, SignerError when the key is another one or is not there."""
    key = ModuleKey(name, config, secrets)
    try:
        await key.open()
    except BaseException:
        await key.close()
        raise
    return key


class ModuleKey:
    """One session with the module, in one thread of its own: sessions are not for several."""

    __slots__ = ("_config", "_private", "_secrets", "_session", "_thread", "address", "key_id")

    def __init__(self, name: str, config: Config, secrets: Secrets) -> None:
        self.key_id, self.address, self._config, self._secrets = name, config.address, config, secrets
        self._thread = ThreadPoolExecutor(1, "isthmus-module")
        self._session: Any = None
        self._private: Any = None

    @property
    def custody(self) -> Custody:
        return CUSTODY

    async def open(self) -> None:
        """See `open_key`."""
        await self._run(self._open)

    async def signature(self, preimage: Preimage) -> bytes:
        """As `Key`. The module may give another signature each time; asking again is harmless."""
        raw = await self._run(lambda: self._sign(preimage.digest))
        return signature_of(preimage.digest, *read_pair(raw), self.address)

    async def health(self) -> str:
        """Whether the key is found and is the one. It does not sign for this."""
        try:
            await self._run(self._open)
        except IsthmusError as error:
            return str(error)
        return ""

    async def close(self) -> None:
        await self._run(self._leave)
        self._thread.shutdown(wait=False)

    async def _run(self, work: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _open(self) -> None:
        """A new session in the place of the old one."""
        try:
            import pkcs11
            from pkcs11.exceptions import NoSuchToken, PinIncorrect, PinLocked, PKCS11Error
        except ImportError:
            raise SecretError(NEEDS) from None
        self._leave()
        pin, config = self._secrets.read(self._config.pin), self._config
        try:
            token = pkcs11.lib(config.module).get_token(token_label=config.token)
            self._session = token.open(user_pin=pin.reveal())
            self._private = self._found(pkcs11.ObjectClass.PRIVATE_KEY)
            self._check(self._found(pkcs11.ObjectClass.PUBLIC_KEY))
        except (PinIncorrect, PinLocked):
            raise SecretError(f"the PIN does not open the token {config.token}; check wallet.pin before it locks") from None
        except NoSuchToken:
            raise SignerUnavailableError(f"there is no token {config.token}; plug it in, or correct wallet.token") from None
        except PKCS11Error as error:
            raise SignerUnavailableError(f"{config.module} does not open ({type(error).__name__}); check wallet.module") from None

    def _found(self, kind: Any) -> Any:
        from pkcs11 import Attribute, KeyType

        wanted = {Attribute.CLASS: kind, Attribute.KEY_TYPE: KeyType.EC, Attribute.LABEL: self._config.label}
        found = list(self._session.get_objects(wanted))
        if len(found) != 1:
            count = "no" if not found else "more than one"
            raise SignerError(f"the token {self._config.token} has {count} key pair {self._config.label}; correct wallet.label")
        return found[0]

    def _check(self, public: Any) -> None:
        from pkcs11 import Attribute

        if bytes(public[Attribute.EC_PARAMS]) != CURVE_OID:
            raise SignerError(f"the key {self._config.label} is not of secp256k1; make it anew, of that curve")
        held = address_of(_point(bytes(public[Attribute.EC_POINT])))
        if held != self.address:
            raise SignerError(f"the key {self._config.label} is {held}, wallet.address is {self.address}; correct one")
        for attribute, must in ((Attribute.SENSITIVE, True), (Attribute.EXTRACTABLE, False)):
            if self._private[attribute] is not must:
                raise SignerError(f"the token would give the key {self._config.label} out; make it sensitive and not extractable")

    def _sign(self, digest: bytes) -> bytes:
        from pkcs11.exceptions import PKCS11Error

        try:
            return self._signed(digest)
        except PKCS11Error as error:
            if type(error).__name__ not in OVER:
                raise self._silent(error) from None
        self._open()  # it was reset, or pulled and plugged in again: once more, from the start
        try:
            return self._signed(digest)
        except PKCS11Error as error:
            raise self._silent(error) from None

    def _signed(self, digest: bytes) -> bytes:
        from pkcs11 import Mechanism

        if self._private is None:
            self._open()
        return bytes(self._private.sign(digest, mechanism=Mechanism.ECDSA))

    def _silent(self, error: Exception) -> SignerUnavailableError:
        return SignerUnavailableError(f"the token {self._config.token} does not sign ({type(error).__name__}); look at it")

    def _leave(self) -> None:
        session, self._session, self._private = self._session, None, None
        if session is not None:
            from pkcs11.exceptions import PKCS11Error

            with contextlib.suppress(PKCS11Error):
                session.close()


def _point(raw: bytes) -> bytes:
    """CKA_EC_POINT is an octet string in DER; some modules leave its head out."""
    return raw[2:] if raw[:2] == bytes((0x04, POINT_BYTES)) and len(raw) == POINT_BYTES + 2 else raw
