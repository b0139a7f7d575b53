"""The threshold engine: the cryptography of a key of which every party holds a share and nobody the whole. The one door to it.

It is compiled from `threshold/` (the crate `cggmp24`, CGGMP24 over secp256k1) and optional: where it was not built, importing this
module raises SignerError. It knows no network, no policy and no file. A *ceremony* is one party's side of one run of a protocol:

    keygen -> Core                            once for each key: milliseconds
    aux -> Aux                                once for each group of parties, from its own `Primes`: a minute, tens of seconds
    presign -> Presignature                   ahead of each signature: about a second
    Presignature.sign -> Signing -> combine   one message from each signer: under a millisecond

`start()` and `receive(sender, body)` return the messages to send next, until `is_done`; then `result()` hands the result over,
once. They block while they compute, without the interpreter's lock: call them from a thread. Whoever carries the messages owes

* that each arrives sealed, and that its sender is known: `receive` is told, and holds that against what the message says;
* a new 32-byte execution id for every run, the same for all of its parties, never used again;
* that all parties compare `KeyShare.fingerprint` before any of them accepts a new key.

MessageRefused: that message was not for this ceremony or not well formed; nothing has changed, and the right one may still come.
CeremonyAborted: the ceremony is over; whoever is known to have cheated is named in `guilty`, by index at key generation.

A *presignature* signs once, in the process that made it, and can be neither stored nor copied: a second use would give the key
away. What is signed is handed over as it is and hashed (Keccak-256) inside, because a bare hash that a stranger chose, signed with
a presignature, lets him forge. An EIP-712 message is the 66 bytes `1901 | domain separator | struct hash`, a transaction its
unsigned bytes. A signature is r, s (low) and the recovery id (0 or 1), 65 bytes, and was verified against the key.
"""

from agent.domain.errors import SignerError

NEEDS_ENGINE = "the threshold engine is not built; run: make mpc (it needs Rust 1.85 or newer), or choose another kind of key"

try:
    from isthmus_threshold import (
        MESSAGE_BYTES_MAX,
        PARTIES_MAX,
        Aux,
        Ceremony,
        CeremonyAborted,
        Core,
        KeyShare,
        Message,
        MessageRefused,
        Presignature,
        PresignatureSpent,
        Primes,
        Signing,
        ThresholdError,
        aux,
        keygen,
        presign,
    )
except ModuleNotFoundError:
    raise SignerError(NEEDS_ENGINE) from None

__all__ = [
    "MESSAGE_BYTES_MAX",
    "NEEDS_ENGINE",
    "PARTIES_MAX",
    "Aux",
    "Ceremony",
    "CeremonyAborted",
    "Core",
    "KeyShare",
    "Message",
    "MessageRefused",
    "Presignature",
    "PresignatureSpent",
    "Primes",
    "Signing",
    "ThresholdError",
    "aux",
    "keygen",
    "presign",
]
