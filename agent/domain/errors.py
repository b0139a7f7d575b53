"""What can go wrong, as one tree. Refusals of a trade are data (`plan.Refused`); these are broken promises and bad input.

Each class carries the exit code of the command line: 2 usage, 3 refused by risk, 4 venue or chain, 5 outcome unknown.
"""

from typing import ClassVar


class IsthmusError(Exception):
    """Root. The message is one line that says what to do next, and never holds a secret."""

    exit_code: ClassVar[int] = 1


class UsageError(IsthmusError):
    """What the user gave cannot be used: text, a flag, a file."""

    exit_code = 2


class ConfigError(UsageError):
    """The configuration is wrong: an unknown key, a bad value, a reference to nothing."""


class NumberError(UsageError):
    """Text that is not a plain decimal number within bounds."""


class SecretError(UsageError):
    """A secret is missing, unreadable, or does not open what it should."""


class RefusedError(IsthmusError):
    """Risk refused, where a caller asked for an exception instead of a value."""

    exit_code = 3


class LiquidityError(IsthmusError):
    """A source cannot fill the amount from what is known of it."""

    exit_code = 4


class VenueError(IsthmusError):
    """The venue said no, or cannot be reached *and nothing was sent*. `code` is the venue's own."""

    exit_code = 4

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class ChainError(VenueError):
    """The chain or its RPC said no, or cannot be reached *and nothing was sent*."""


class FrameError(VenueError):
    """A message from outside that this program does not understand."""


class OutcomeUnknown(IsthmusError):  # noqa: N818 - the word of the design; it is a state, not a failure
    """Something was sent and nobody knows yet what became of it. Never resend: ask for it by its own id."""

    exit_code = 5


class JournalError(IsthmusError):
    """The journal cannot be written, or does not read back as it was written. Nothing new may be sent."""

    exit_code = 1


class StartRefusedError(IsthmusError):
    """Journal and world cannot be brought together, so nothing is started on it before a person has looked."""

    exit_code = 4


class SignerError(IsthmusError):
    """The signer refuses: it does not understand the request, or its policy forbids it. Nothing was signed."""

    exit_code = 3


class SignerUnavailableError(SignerError):
    """The key cannot be asked now: it is away, busy or locked. Nothing was signed; it may be asked again."""

    exit_code = 4


class SignatureUnknownError(SignerError):
    """The key was asked, and nobody knows whether it signed. Ask it about this very request before anything else."""

    exit_code = 4


class LedgerError(IsthmusError):
    """What the ledger was asked to book does not add up, or belongs to another order. Nothing was booked."""

    exit_code = 1
