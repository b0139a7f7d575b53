"""What a node's answer to a send means for our money: accepted, certainly refused, or nobody knows.

A transaction has its hash before it leaves, so "nobody knows" is never a dead end: it is asked for by that hash, and sending the
same bytes again can only make the same transaction happen once.
"""

from agent.domain.errors import ChainError, OutcomeUnknown

# The node has, or has had, this nonce from us: perhaps with these very bytes. Only asking by hash tells.
_ASK = ("already known", "already imported", "known transaction", "nonce too low", "already in the pool", "alreadyknown")
# Refused before it entered the pool, in the words of geth, reth, erigon, nethermind, besu, anvil and eth-tester. What matches none
# of these words counts as unknown: a wrong "certainly refused" would trade twice, a wrong "unknown" costs one question.
_REFUSED = (
    "insufficient funds",
    "enough balance",
    "intrinsic gas",
    "less than block base fee",
    "less than the block base fee",
    "fee cap",
    "feetoolow",
    "underpriced",
    "priority fee per gas higher",
    "tip higher than fee cap",
    "tip above fee cap",
    "exceeds block gas limit",
    "exceeds the block gas limit",
    "gas limit too high",
    "exceeds the configured cap",
    "nonce too high",
    "invalid sender",
    "invalid signature",
    "invalid chain id",
    "chain id mismatch",
    "oversized data",
    "rlp:",
    "failed to decode",
    "txpool is full",
    "only replay-protected",
    "transaction type not supported",
)
_NOT_EXECUTED = frozenset({-32700, -32600, -32601, -32602})  # JSON-RPC: unreadable, not a request, no such method, bad parameters
_CLOSED_DOOR = frozenset({401, 403, 404, 405, 413, 429})  # HTTP: turned away before any node saw the request


def refusal(message: str, code: int, place: str) -> ChainError | OutcomeUnknown:
    """The node answered a send with an error. `message` is already printable; `place` names the node without its secrets."""
    text = message.lower()
    if any(words in text for words in _ASK):
        return OutcomeUnknown(f"{place} may have this transaction already ({message}): ask for it by its hash")
    if code in _NOT_EXECUTED or any(words in text for words in _REFUSED):
        return ChainError(f"{place} refused the transaction: {message}", str(code))
    return OutcomeUnknown(f"{place} answered the send with an error that may mean anything ({message}): ask for it by its hash")


def turned_away(status: int) -> bool:
    """Whether an HTTP status proves that the request never reached a node."""
    return status in _CLOSED_DOOR
