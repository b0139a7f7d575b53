"""A transaction is run before it is signed, and what it would do is held against what its bytes say.

The bytes bound what a swap may cost and must bring; a token, a hook or a pool that does something else on the way shows only when
the transaction is run. So the holder's coins are counted before and after: no token may lose more than the swaps give of it, what
they receive must arrive, and nobody new may be allowed to take coins afterwards. What cannot be run is not signed.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from agent.domain.errors import SignerError, SignerUnavailableError, VenueError
from agent.domain.plan import Call
from agent.keys.bounds import ANY_AMOUNT, NO_HOOKS, Act, KeyPolicy
from agent.keys.digest import Transaction
from agent.keys.rules import amount
from agent.keys.steps import Preimage
from agent.ports import Asked, Rehearsed

Run = Callable[[Asked], Awaitable[Rehearsed]]


class Rehearsal(msgspec.Struct, frozen=True):
    """How transactions under `policy` are run before they are signed: see `Rehearsing` of the ports."""

    policy: KeyPolicy
    run: Run


async def rehearsed(wanted: Preimage, rehearsals: Mapping[int, Rehearsal]) -> None:
    """Raises SignerError for a transaction that does something else than it says or that would fail; then it must not be signed.

    SignerUnavailableError when nobody can tell. To take a transaction back moves nothing, and is never held up by this.
    """
    tx, meaning = wanted.source, wanted.meaning
    if not isinstance(tx, Transaction) or meaning is None or all(act.kind == "take_back" for act in meaning.acts):
        return
    rehearsal = rehearsals.get(tx.chain_id)
    if rehearsal is None:
        return
    policy = rehearsal.policy
    holder = policy.owner if policy.account is None else policy.account.address
    tokens = tuple(sorted({token for act in meaning.acts for token in (act.given, act.received) if token} - {NO_HOOKS}))
    asked = Asked(Call("0x" + tx.to.hex(), tx.data, tx.value), policy.owner, tx.nonce, tx.gas_limit, holder, tokens)
    try:
        found = await rehearsal.run(asked)
    except VenueError as error:
        raise SignerUnavailableError(f"the transaction could not be run beforehand, so it is not signed: {error}") from None
    prefund = 0 if meaning.wrapped is None else meaning.wrapped.gas * meaning.wrapped.gas_fee_max
    if why := objection(policy, meaning.acts, found, prefund):
        raise SignerError(f"rehearsal: {why}")


def objection(policy: KeyPolicy, acts: Sequence[Act], found: Rehearsed, prefund: int = 0) -> str:
    """Why a transaction that was read as `acts` may not be signed after it did `found`; empty if it may.

    `prefund`: wei that the account itself may pay for gas (ERC-4337).
    """
    if found.reverted:
        return f"it would fail: {found.reverted}"
    least = _least(acts)
    least[NO_HOOKS] -= prefund
    for token in sorted(least.keys() | found.changes.keys()):
        change, bound = found.changes.get(token, 0), least[token]
        if change < bound:
            told = [("-" if units < 0 else "+") + amount(abs(units), token, policy.names) for units in (change, bound)]
            return f"the account would end with {told[0]}, and the bytes promise {told[1]} or better"
    for contract, spender in found.allowed:
        if spender != (policy.router if contract == policy.permit2 else policy.permit2):
            return f"it would let {spender} take coins of the account, says {contract}"
    return ""


def _least(acts: Sequence[Act]) -> Counter[str]:
    """token -> the least by which the holder's balance changes, over all swaps together."""
    least: Counter[str] = Counter()
    for act in acts:
        if act.kind == "swap":
            least[act.received] += 0 if act.least == ANY_AMOUNT else act.least
            least[act.given] -= act.amount
    return least
