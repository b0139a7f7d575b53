"""`kind = "fireblocks"`: a vault account at Fireblocks, or at a custodian that speaks its API. Its tickets settle by polling.

Every transaction carries the ticket's id as its external id, of which the custodian takes one only: what may have arrived is asked
about by it. Completed is believed when the chain says so too. Needs `pip install 'isthmus[fireblocks]'`. Source: Fireblocks API
reference (authentication by signed JWT; POST /v1/transactions; GET /v1/transactions/external_tx_id/{id}; .../cancel).
"""

import asyncio
import hashlib
import uuid
from collections.abc import Sequence
from typing import Any, Final, Literal
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec
from pydantic import Field, field_validator

from agent.domain.amount import plain
from agent.domain.errors import SecretError, SignatureUnknownError, SignerError, SignerUnavailableError
from agent.domain.plan import Call
from agent.keys.bounds import Act
from agent.keys.filing import Means, check, ended, filed, is_over
from agent.keys.http import HERE
from agent.keys.policy import acts_of
from agent.keys.secrets import Secret, Secrets
from agent.keys.section import Section
from agent.keys.sending import asked, hash_text
from agent.keys.tickets import SECOND_NS, Filed
from agent.ports import Custody, Signer, Ticket, TicketState

CUSTODY = Custody("fireblocks", "cold", "people")
ANSWER_S = 10.0
ANSWER_BYTES_MAX = 262_144
TOKEN_S = 25  # the most is 30
NEEDS = "a vault at Fireblocks needs PyJWT; run: pip install 'isthmus[fireblocks]'"

STATES: Final[dict[str, TicketState]] = {
    "SUBMITTED": "waiting",
    "PENDING_AML_SCREENING": "waiting",
    "PENDING_ENRICHMENT": "waiting",
    "PENDING_AUTHORIZATION": "waiting",
    "QUEUED": "waiting",
    "PENDING_SIGNATURE": "waiting",
    "PENDING_3RD_PARTY_MANUAL_APPROVAL": "waiting",
    "PENDING_3RD_PARTY": "waiting",
    "CANCELLING": "waiting",
    "BROADCASTING": "sent",
    "CONFIRMING": "sent",
    "COMPLETED": "done",
    "CANCELLED": "refused",
    "BLOCKED": "refused",
    "REJECTED": "refused",
    "FAILED": "refused",
}


class Config(Section):
    """`address`: of the vault account on the chain. `assets`: what the custodian calls each coin; the native one is ETH."""

    kind: Literal["fireblocks"] = "fireblocks"
    url: str = "https://api.fireblocks.io"
    api_key: str = Field(min_length=1, max_length=128)
    secret: str = Field(description="the API user's RSA key in PEM: file:PATH with mode 600, env:NAME or keyring:SERVICE/NAME")
    vault_account: str = Field(pattern=r"^[0-9]{1,10}$")
    assets: dict[str, str] = Field(min_length=1, max_length=64)

    @field_validator("url")
    @classmethod
    def _is_safe(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
            raise ValueError("url is not an address; write https://HOST")
        if parts.scheme == "http" and parts.hostname not in HERE:
            raise ValueError("another machine is reached over https only")
        return value.rstrip("/")


class _Told(msgspec.Struct, frozen=True):
    """A transaction as the custodian tells it; what else it tells is not needed."""

    id: str
    status: str
    subStatus: str = ""  # noqa: N815 - its own word
    txHash: str = ""  # noqa: N815


async def open_vault(
    means: Means,
    config: Config,
    keys: Sequence[Signer],  # noqa: ARG001 - every kind is opened alike
    executor: Signer | None,  # noqa: ARG001
    secrets: Secrets,
) -> "FireblocksVault":
    """Raises SecretError without the library or the key. Nothing is asked of the custodian yet."""
    return FireblocksVault(means, config, secrets.read(config.secret))


class FireblocksVault:
    """Satisfies the port Vault."""

    __slots__ = ("_config", "_means", "_secret", "_session", "address")

    def __init__(self, means: Means, config: Config, secret: Secret) -> None:
        self._means, self._config, self._secret, self.address = means, config, secret, config.address
        self._token("/", b"")  # a key that is none is told now
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=ANSWER_S), trust_env=False, cookie_jar=aiohttp.DummyCookieJar()
        )

    @property
    def custody(self) -> Custody:
        return self._means.custody(CUSTODY)

    async def propose(self, request: str, calls: Sequence[Call]) -> Ticket:
        """As the port says: one transfer, or one contract call."""
        async with self._means.tickets.turn():
            self._asset(check(self._means, calls, calls_max=1)[0])  # a coin that it has no word for is told before a ticket is made
            one, is_new = filed(self._means, request, calls, calls_max=1)
            return (await self._posted(one)).ticket if is_new else one.ticket

    async def poll(self, ticket: Ticket) -> Ticket:
        async with self._means.tickets.turn():
            one = self._means.tickets.find(ticket.id)
            return one.ticket if one.ticket.state in ("done", "refused") else (await self._advanced(one)).ticket

    async def refuse(self, ticket: Ticket, reason: str) -> Ticket:
        """The custodian is asked to cancel it; it is refused when the custodian says that it is cancelled."""
        async with self._means.tickets.turn():
            one = self._means.tickets.find(ticket.id)
            if one.ticket.state in ("done", "refused", "sent"):
                raise SignerError(f"ticket {one.ticket.id} is {one.ticket.state}; it cannot be taken back")
            one = self._means.tickets.moved(one, one.ticket.state, one.ticket.reason, nothing=reason or "refused")
            return (await self._advanced(one)).ticket

    async def close(self) -> None:
        await self._session.close()

    def __repr__(self) -> str:
        return f"FireblocksVault({self.address}, key=****)"

    # -- how far a ticket is -------------------------------------------------------------------------------------------

    async def _posted(self, one: Filed) -> Filed:
        tickets = self._means.tickets
        one = tickets.moved(one, "waiting", "it is on its way to the custodian", posted="yes")
        try:
            status, body = await self._ask("POST", "/v1/transactions", self._document(one))
        except SignatureUnknownError as error:
            return tickets.moved(one, "waiting", str(error))
        if status in (200, 201):
            return await self._moved(one, self._told(body))
        told = await self._found(one)  # the external id may have been there before
        if told is not None:
            return await self._moved(one, told)
        return ended(self._means, one, "refused", f"the custodian refuses it (status {status}); look at its console")

    async def _advanced(self, one: Filed) -> Filed:
        told = await self._found(one)
        if told is None:
            if "nothing" in one.notes or is_over(self._means, one):
                if "posted" not in one.notes:
                    return ended(self._means, one, "refused", one.notes.get("nothing", "nobody took it in time"))
                return self._means.tickets.moved(one, "waiting", "the custodian does not know it; ask again later")
            return await self._posted(one)
        is_unwanted = "nothing" in one.notes or is_over(self._means, one)
        if is_unwanted and STATES.get(told.status) == "waiting" and told.status != "CANCELLING":
            one = self._means.tickets.moved(one, one.ticket.state, one.ticket.reason, nothing=one.notes.get("nothing", "too late"))
            await self._ask("POST", f"/v1/transactions/{quote(told.id, safe='')}/cancel", None)
            told = await self._found(one) or told
        return await self._moved(one, told)

    async def _moved(self, one: Filed, told: _Told) -> Filed:
        """In the ticket's own words. A status that is not known changes nothing."""
        tickets, state = self._means.tickets, STATES.get(told.status)
        status = "".join(letter for letter in f"{told.status} {told.subStatus}"[:80] if letter.isprintable())
        said, tx_hash = f"the custodian says {status}".strip(), hash_text(told.txHash.lower())
        if state == "refused":
            return ended(self._means, one, "refused", one.notes.get("nothing", said) if told.status == "CANCELLED" else said)
        if state == "done" and not await self._is_mined(tx_hash):
            return tickets.moved(one, "sent", f"{said}, the chain does not know of it", tx_hash)
        if state is None:
            return tickets.moved(one, one.ticket.state, said)
        return tickets.moved(one, state, "" if state == "done" else said, tx_hash)

    async def _is_mined(self, tx_hash: str) -> bool:
        if not tx_hash:
            return False
        receipt = await asked(self._means.chain, "eth_getTransactionReceipt", tx_hash)
        return isinstance(receipt, dict) and receipt.get("status") == "0x1"

    async def _found(self, one: Filed) -> _Told | None:
        status, body = await self._ask("GET", f"/v1/transactions/external_tx_id/{one.ticket.id}", None)
        if status == 404:
            return None
        if status != 200:
            raise SignerUnavailableError(f"{self._config.url} cannot tell now (status {status}); ask again later")
        return self._told(body)

    def _told(self, body: bytes) -> _Told:
        try:
            return msgspec.json.decode(body, type=_Told)
        except (msgspec.MsgspecError, RecursionError):
            raise SignerUnavailableError(f"{self._config.url} answers with something else; check the url") from None

    def _document(self, one: Filed) -> dict[str, Any]:
        (call,), (act, *_) = one.calls, acts_of(self._means.policy, one.calls)
        is_payment = act.kind == "transfer"
        asset, decimals = self._asset(act)
        made = {
            "operation": "TRANSFER" if is_payment else "CONTRACT_CALL",
            "assetId": asset,
            "source": {"type": "VAULT_ACCOUNT", "id": self._config.vault_account},
            "destination": {"type": "ONE_TIME_ADDRESS", "oneTimeAddress": {"address": act.to if is_payment else call.to}},
            "amount": plain(act.amount, decimals) if is_payment else "0",
            "externalTxId": one.ticket.id,
            "note": "; ".join(one.ticket.meaning)[:200],
        }
        return made if is_payment else {**made, "extraParameters": {"contractCallData": "0x" + call.data.hex()}}

    def _asset(self, act: Act) -> tuple[str, int]:
        """What the custodian calls the coin of an act, and its decimals. SignerError when it has no word for it."""
        symbol, decimals = self._means.policy.names.get(act.given, (act.given, 0)) if act.kind == "transfer" else ("ETH", 18)
        if symbol not in self._config.assets:
            raise SignerError(f"the custodian's word for {symbol} is not known; add it to assets of {self._means.name}")
        return self._config.assets[symbol], decimals

    # -- the wire ------------------------------------------------------------------------------------------------------

    async def _ask(self, method: str, path: str, document: dict[str, Any] | None) -> tuple[int, bytes]:
        """Status and body. SignerUnavailableError: certainly not heard; SignatureUnknownError: perhaps; SignerError: not let in."""
        body = b"" if document is None else msgspec.json.encode(document)
        headers = {"X-API-Key": self._config.api_key, "Authorization": f"Bearer {self._token(path, body)}"}
        headers |= {"Content-Type": "application/json"} if body else {}
        where = f"the custodian at {self._config.url}"
        try:
            async with self._session.request(
                method, self._config.url + path, data=body or None, headers=headers, allow_redirects=False
            ) as answer:
                found = await answer.content.read(ANSWER_BYTES_MAX)
                status = answer.status
        except aiohttp.ClientConnectorError:
            raise SignerUnavailableError(f"{where} does not answer; check the network and the url") from None
        except (aiohttp.ClientError, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            if method == "GET":
                raise SignerUnavailableError(f"{where} does not answer ({type(error).__name__}); ask again later") from None
            raise SignatureUnknownError(f"{where} did not answer ({type(error).__name__}); it is asked by its id") from None
        if status in (401, 403):
            raise SignerError(f"{where} does not let this program in ({status}); check api_key, secret and the clock")
        if status == 429 or status >= 500:
            kind = SignerUnavailableError if method == "GET" or status == 429 else SignatureUnknownError
            raise kind(f"{where} cannot answer now (status {status}); ask again later")
        return status, found

    def _token(self, path: str, body: bytes) -> str:
        try:
            import jwt
        except ImportError:
            raise SecretError(NEEDS) from None
        now_s = self._means.tickets.now_ns() // SECOND_NS
        claims = {
            "uri": path,
            "nonce": str(uuid.uuid4()),
            "iat": now_s,
            "exp": now_s + TOKEN_S,
            "sub": self._config.api_key,
            "bodyHash": hashlib.sha256(body).hexdigest(),
        }
        try:
            return jwt.encode(claims, self._secret.reveal(), algorithm="RS256")
        except (jwt.PyJWTError, ValueError, TypeError):
            raise SecretError(f"the secret of {self._means.name} is no RSA key in PEM that can be used; check it") from None
