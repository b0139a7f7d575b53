"""Your own key on this machine: signs swaps, approvals and permits of one on-chain account, within its policies.

A fresh signer signs nothing. `allow` gives it one policy for each chain; from then on it decodes the raw bytes of every request,
and refuses what it does not understand. When it is unlocked it proves itself once: it signs, and its own public key is recovered
from that. To do so for every signature would double what it costs, and an altered signature moves nothing: it is of nobody.
"""

import sys
from pathlib import Path

import coincurve
import sha3
from coincurve._libsecp256k1 import ffi, lib
from coincurve.context import GLOBAL_CONTEXT
from eth_keys.backends import get_backend_class

from agent.domain.errors import SignerError
from agent.domain.plan import Calls, Signed, SignedTransaction, Unsigned
from agent.keys.bounds import DEADLINE_AHEAD_S, KeyPolicy
from agent.keys.delegation import delegation
from agent.keys.digest import address_bytes, checksum, keccak
from agent.keys.memory import KeyPage
from agent.keys.rehearsal import Rehearsal, rehearsed
from agent.keys.spent import Spent
from agent.keys.steps import Preimage, Steps, alone, signed_by, steps
from agent.ports import Clock, Custody

_UNCOMPRESSED = 2  # SECP256K1_EC_UNCOMPRESSED, secp256k1.h
_POINT_BYTES = 65
_POINT = "secp256k1_pubkey *"
_PROBE = keccak(b"isthmus: a key proves itself")
_EMPTY_KECCAK = "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"


class LocalSigner:
    """An EOA's key in a locked page. Satisfies the ports Signer and Account. Safe to use from several threads."""

    __slots__ = ("_ahead_s", "_clock", "_key", "_key_id", "_point", "_policies", "_rehearsals", "_spent", "address")

    def __init__(
        self,
        key: bytearray,
        key_id: str = "",
        clock: Clock | None = None,
        deadline_ahead_s: int = DEADLINE_AHEAD_S,
        spent: Spent | None = None,
    ) -> None:
        """Takes `key` (32 bytes, big endian) over and zeroes it. Raises SignerError for a number that is no key.

        `clock` must be the chain's; without one, deadlines are only checked to be finite. `spent`: for rules with windows.
        """
        self._spent = spent
        self._key = KeyPage(key)
        self._policies: dict[int, KeyPolicy] = {}
        self._rehearsals: dict[int, Rehearsal] = {}
        self._clock, self._ahead_s = clock, deadline_ahead_s
        try:
            self._point = _public_point(self._key)
            self._prove(key_id)
        except SignerError:
            self._key.close()
            raise
        self.address = checksum(keccak(self._point[1:])[12:])
        self._key_id = key_id or f"eoa:{self.address}"

    @property
    def key_id(self) -> str:
        return self._key_id

    @property
    def custody(self) -> Custody:
        return Custody("local", "hot", "microseconds")

    def allow(self, policy: KeyPolicy, rehearsal: Rehearsal | None = None) -> None:
        """Let the key sign on one chain, with a `rehearsal` no transaction before it was run there.

        Once per chain: a running signer's policy cannot be widened (SignerError).
        """
        if address_bytes(policy.owner) != address_bytes(self.address):
            raise SignerError(f"the policy is for {policy.owner}, this key is {self.address}")
        if policy.chain_id in self._policies:
            raise SignerError(f"key {self._key_id} has a policy for chain {policy.chain_id} already; restart to change it")
        self._policies[policy.chain_id] = policy
        if rehearsal is not None:
            self._rehearsals[policy.chain_id] = rehearsal

    async def sign(self, unsigned: Unsigned) -> Signed:
        """Sign calls or typed data within the policy. Raises SignerError, and then nothing was signed."""
        return self.sign_now(unsigned) or await signed_by(self._steps(unsigned), self._signature)

    def sign_now(self, unsigned: Unsigned) -> Signed | None:
        """The same at once; None for a transaction that is to be rehearsed first."""
        if isinstance(unsigned, Calls) and unsigned.chain_id in self._rehearsals:
            return None
        work = self._steps(unsigned)
        try:
            wanted = next(work)
            while True:
                try:
                    signature = self._sign_digest(wanted.digest)
                except SignerError as error:
                    work.throw(error)  # gives back what was set aside, and raises it
                else:
                    wanted = work.send(signature)
        except StopIteration as done:
            signed: Signed = done.value
            return signed

    def sign_preimage(self, preimage: Preimage) -> bytes:
        """One thing of `steps`, decided on its bytes alone, for another process: 65 bytes, or SignerError."""
        held = alone(preimage, self._policies, self._key_id, self._deadline_s_max(), self._spent)
        try:
            return self._sign_digest(preimage.digest)
        except SignerError:
            if held is not None:
                held.release()
            raise

    def sign_delegation(self, chain_id: int, nonce: int, gas_fee_max: int, gas_tip: int, *, is_undone: bool) -> SignedTransaction:
        """That this address runs the code of its policy's delegate from now on, or none any more. Raises SignerError."""
        if chain_id not in self._policies:
            raise SignerError(f"key {self._key_id} has no policy for chain {chain_id}; it signs nothing there")
        return delegation(self._policies[chain_id], nonce, gas_fee_max, gas_tip, self._sign_digest, is_undone=is_undone)

    @property
    def is_locked(self) -> bool:
        """Whether the system promised never to swap the key out."""
        return self._key.locked

    def close(self) -> None:
        """Wipe the key. Every later request is refused."""
        self._key.close()

    def __repr__(self) -> str:
        return f"LocalSigner({self.address}, key=****)"

    def __reduce__(self) -> str:
        raise SignerError("a signer cannot be pickled or copied")

    def _steps(self, unsigned: Unsigned) -> Steps:
        return steps(unsigned, self._policies, self.address, self._key_id, self._deadline_s_max(), self._spent)

    async def _signature(self, wanted: Preimage) -> bytes:
        await rehearsed(wanted, self._rehearsals)
        return self._sign_digest(wanted.digest)

    def _deadline_s_max(self) -> int | None:
        return None if self._clock is None else self._clock.now_ns() // 1_000_000_000 + self._ahead_s

    def _sign_digest(self, digest: bytes) -> bytes:
        """r, s, v (27 or 28): 65 bytes, s low, deterministic nonce (RFC 6979)."""
        context, signature = GLOBAL_CONTEXT.ctx, ffi.new("secp256k1_ecdsa_recoverable_signature *")
        if not lib.secp256k1_ecdsa_sign_recoverable(context, signature, digest, self._key.pointer, ffi.NULL, ffi.NULL):
            raise SignerError(f"key {self._key_id} cannot sign (a forked process has no key); unlock it again")
        compact, parity = ffi.new("unsigned char[64]"), ffi.new("int *")
        lib.secp256k1_ecdsa_recoverable_signature_serialize_compact(context, compact, parity, signature)
        return bytes(ffi.buffer(compact, 64)) + bytes((27 + parity[0],))

    def _prove(self, key_id: str) -> None:
        """Raises SignerError if a signature of this key is not its own: then this machine, or its libraries, cannot be trusted."""
        context, signature, point = GLOBAL_CONTEXT.ctx, ffi.new("secp256k1_ecdsa_recoverable_signature *"), ffi.new(_POINT)
        is_signed = lib.secp256k1_ecdsa_sign_recoverable(context, signature, _PROBE, self._key.pointer, ffi.NULL, ffi.NULL)
        is_found = is_signed and lib.secp256k1_ecdsa_recover(context, point, signature, _PROBE)
        if not is_found or _serialized(point) != self._point:
            raise SignerError(f"key {key_id} made a signature that is not its own; stop and check this machine")


def assert_fast_backend() -> None:
    """Start-up check that signing and hashing run in native code, and give the known answers. Raises SignerError otherwise.

    Both have slow or absent stand-ins that nobody notices: a signature would take two milliseconds instead of fifty microseconds.
    """
    if not _is_native(sys.modules.get(sha3.keccak_256.__module__)):
        raise SignerError("the native keccak is missing: install safe-pysha3 from a wheel, and nothing else that is called sha3")
    if keccak(b"").hex() != _EMPTY_KECCAK:
        raise SignerError("keccak gives a wrong answer: reinstall safe-pysha3")
    if not _is_native(coincurve._libsecp256k1):
        raise SignerError("the native secp256k1 is missing: install coincurve from a wheel")
    if get_backend_class().__name__ != "CoinCurveECCBackend":
        raise SignerError("eth-keys does not use coincurve: unset ECC_BACKEND_CLASS")
    probe = LocalSigner(bytearray(bytes(31) + b"\x01"))
    probe.close()
    if probe.address != "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf":  # the address of key 1, known everywhere
        raise SignerError("secp256k1 gives a wrong answer: reinstall coincurve")


def _is_native(module: object) -> bool:
    return Path(getattr(module, "__file__", None) or "x.py").suffix in (".so", ".pyd", ".dylib")


def _public_point(key: KeyPage) -> bytes:
    point = ffi.new(_POINT)
    if not lib.secp256k1_ec_pubkey_create(GLOBAL_CONTEXT.ctx, point, key.pointer):
        raise SignerError("this number is not a secp256k1 key")
    return _serialized(point)


def _serialized(point: object) -> bytes:
    out, size = ffi.new(f"unsigned char[{_POINT_BYTES}]"), ffi.new("size_t *", _POINT_BYTES)
    lib.secp256k1_ec_pubkey_serialize(GLOBAL_CONTEXT.ctx, out, size, point, _UNCOMPRESSED)
    return bytes(ffi.buffer(out, _POINT_BYTES))
