"""A key that lies elsewhere: in a process of its own, behind a service, in a module that never gives it away.

What it may sign is decided here, on the raw bytes, as for a key of this process (`steps`); the key may have a policy of its own
beside that. A key that is not ours to look into is not believed: each signature is held against its address before it is used.
"""

import asyncio
from typing import Protocol

import coincurve

from agent.domain.errors import SecretError, SignerError, SignerUnavailableError
from agent.domain.plan import Signed, Unsigned
from agent.keys.bounds import DEADLINE_AHEAD_S, KeyPolicy
from agent.keys.digest import address_bytes, checksum, keccak
from agent.keys.rehearsal import Rehearsal, rehearsed
from agent.keys.spent import Spent
from agent.keys.steps import Preimage, signed_by, steps
from agent.ports import Clock, Custody

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141  # of secp256k1, SEC 2
PATIENCE_S = 5.0  # how long one signature may take
PEOPLE_S = 120.0  # where a person reads it first and presses a button


class Key(Protocol):
    """What holds the secret. One file of `agent.keys.custody` for each kind."""

    @property
    def key_id(self) -> str: ...

    @property
    def address(self) -> str:
        """Its account, with checksum."""
        ...

    @property
    def custody(self) -> Custody: ...

    async def signature(self, preimage: Preimage) -> bytes:
        """r, s and v (27 or 28) over the keccak of `preimage.data`: 65 bytes, s low (`signature_of` makes it so).

        Raises SignerError when it is refused, SignerUnavailableError when nothing was signed, SignatureUnknownError when nobody
        knows.
        """
        ...

    async def health(self) -> str:
        """Why it cannot sign now; empty if it can."""
        ...

    async def close(self) -> None: ...


class RemoteSigner:
    """Satisfies the port Signer over a `Key`. Signs nothing until `allow` has given it a policy, one for each chain."""

    __slots__ = ("_ahead_s", "_clock", "_is_closed", "_key", "_patience_s", "_policies", "_rehearsals", "_spent")

    def __init__(
        self,
        key: Key,
        clock: Clock | None = None,
        deadline_ahead_s: int = DEADLINE_AHEAD_S,
        patience_s: float | None = None,
        spent: Spent | None = None,
    ) -> None:
        """`clock` must be the chain's; without one, deadlines are only checked to be finite. `spent`: for rules with windows."""
        self._spent = spent
        usual_s = PEOPLE_S if key.custody.latency == "people" else PATIENCE_S
        self._key, self._clock, self._ahead_s, self._patience_s = key, clock, deadline_ahead_s, patience_s or usual_s
        self._policies: dict[int, KeyPolicy] = {}
        self._rehearsals: dict[int, Rehearsal] = {}
        self._is_closed = False

    @property
    def key_id(self) -> str:
        return self._key.key_id

    @property
    def address(self) -> str:
        return self._key.address

    @property
    def custody(self) -> Custody:
        return self._key.custody

    def allow(self, policy: KeyPolicy, rehearsal: Rehearsal | None = None) -> None:
        """Let the key sign on one chain, with a `rehearsal` no transaction before it was run there.

        Once per chain: a running signer's policy cannot be widened (SignerError).
        """
        if address_bytes(policy.owner) != address_bytes(self.address):
            raise SignerError(f"the policy is for {policy.owner}, this key is {self.address}")
        if policy.chain_id in self._policies:
            raise SignerError(f"key {self.key_id} has a policy for chain {policy.chain_id} already; restart to change it")
        self._policies[policy.chain_id] = policy
        if rehearsal is not None:
            self._rehearsals[policy.chain_id] = rehearsal

    async def sign(self, unsigned: Unsigned) -> Signed:
        """Sign calls or typed data within the policy. Raises SignerError as the port says."""
        if self._is_closed:
            raise SignerError(f"key {self.key_id} is closed; open it again")
        latest_s = None if self._clock is None else self._clock.now_ns() // 1_000_000_000 + self._ahead_s
        work = steps(unsigned, self._policies, self.address, self.key_id, latest_s, self._spent)
        return await signed_by(work, self._signature)

    async def health(self) -> str:
        """Why it cannot sign now; empty if it can."""
        return "it is closed" if self._is_closed else await self._key.health()

    async def close(self) -> None:
        """Every later request is refused."""
        if not self._is_closed:
            self._is_closed = True
            await self._key.close()

    def __repr__(self) -> str:
        return f"RemoteSigner({self.address}, {self.custody.kind}, key=****)"

    def __reduce__(self) -> str:
        raise SignerError("a signer cannot be pickled or copied")

    async def _signature(self, wanted: Preimage) -> bytes:
        await rehearsed(wanted, self._rehearsals)
        try:
            async with asyncio.timeout(self._patience_s):
                signature = await self._key.signature(wanted)
        except TimeoutError:  # without our own bytes around it a signature is of no use to anybody
            raise SignerUnavailableError(
                f"key {self.key_id} did not answer within {self._patience_s:g} s; nothing was signed that anybody has"
            ) from None
        except SecretError as error:  # what reaches the key was moved or closed while we ran
            raise SignerUnavailableError(str(error)) from None
        if recovered(wanted.digest, signature) != self.address:
            raise SignerError(f"key {self.key_id} gave a signature that is not its own; stop and check what answers for it")
        return signature


def recovered(digest: bytes, signature: bytes) -> str:
    """The address whose signature it is, with checksum; empty if it is none, or not in the one form that chains take."""
    if len(signature) != 65 or signature[64] not in (27, 28) or int.from_bytes(signature[32:64], "big") > ORDER // 2:
        return ""
    try:
        plain = signature[:64] + bytes((signature[64] - 27,))
        point = coincurve.PublicKey.from_signature_and_message(plain, digest, hasher=None).format(compressed=False)
    except ValueError:  # no point of the curve has it
        return ""
    return checksum(keccak(point[1:])[12:])


def signature_of(digest: bytes, r: int, s: int, address: str) -> bytes:
    """65 bytes from a bare (r, s), as services and modules give it: s made low, v found by recovery. SignerError if it is not of
    `address`.
    """
    for v in (27, 28) if 0 < r < ORDER and 0 < s < ORDER else ():
        found = r.to_bytes(32, "big") + min(s, ORDER - s).to_bytes(32, "big") + bytes((v,))
        if recovered(digest, found) == address:
            return found
    raise SignerError(f"the signature is not of {address}; check which key answers")
