"""Which number the wallet's next transaction carries. Chains take them in order, each once, without gaps.

Pure: what the chain counts and what the journal remembers go in, the number comes out. A number that was reserved but never sent is
simply not in the journal's list, so it is free again.
"""

from collections.abc import Set as AbstractSet

import msgspec


class NextNonce(msgspec.Struct, frozen=True):
    """`foreign`: numbers that the chain has seen and the journal has not sent: somebody else uses the key. Halt and look."""

    nonce: int
    foreign: tuple[int, ...]


def next_nonce(mined: int, pending: int, sent: AbstractSet[int], known_from: int = 0) -> NextNonce:
    """The lowest number that neither the chain nor the journal has used.

    `mined` and `pending` are the chain's counts (eth_getTransactionCount, latest and pending; a stale pending count below `mined`
    is ignored). `sent` are the journal's numbers of transactions that may have left this machine. `known_from` is the chain's
    count when the journal began: numbers before it are nobody's concern.
    """
    if mined < 0 or known_from < 0:
        raise ValueError("counts are zero or more")
    seen = max(mined, pending)
    foreign = tuple(number for number in range(min(known_from, seen), seen) if number not in sent)
    nonce = mined
    while nonce in sent or nonce in foreign:
        nonce += 1
    return NextNonce(nonce, foreign)
