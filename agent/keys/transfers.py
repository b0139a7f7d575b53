"""What a treasury does, read from the bytes: coins paid to somebody, rights taken away, an owner of a Safe replaced by another.

Who may be paid or become an owner is for the user's rules to say (`rules`): without one that names them nothing of it is signed.
Sources: ERC-20; Permit2 (AllowanceTransfer.lockdown); Safe 1.4.1 (OwnerManager.swapOwner); Zodiac Roles 2.1 (Roles.assignRoles).
"""

from typing import Final

from agent.domain.errors import SignerError
from agent.domain.plan import Call
from agent.keys.accounts.functions import function
from agent.keys.accounts.kinds import Kind as AccountKind
from agent.keys.bounds import NO_HOOKS, Act, KeyPolicy, Rule, norm

TRANSFER: Final = function("transfer(address,uint256)")
APPROVE: Final = function("approve(address,uint256)")
LOCKDOWN: Final = function("lockdown((address,address)[])")
SWAP_OWNER: Final = function("swapOwner(address,address,address)")
ASSIGN_ROLES: Final = function("assignRoles(address,bytes32[],bool[])")
NATIVE: Final = NO_HOOKS  # the coin that pays for gas, as a token
PAIRS_MAX = 64


def treasury_policy(
    chain_id: int,
    owner: str,
    permit2: str,
    tokens: frozenset[str],
    gas_fee_max: int,
    gas_limit_max: int,
    rules: tuple[Rule, ...] = (),
    names: dict[str, tuple[str, int]] | None = None,
    account: AccountKind | None = None,
    modifier: str = "",
) -> KeyPolicy:
    """To pay in `tokens` and the native coin, to revoke, to replace an owner of `account`. `modifier`: of a role of that account.

    Nothing is traded under it, and nothing is paid without a rule that names who is.
    """
    roles = {modifier: frozenset({"0x" + ASSIGN_ROLES.selector.hex()})} if modifier else {}
    return KeyPolicy(
        chain_id,
        owner,
        NO_HOOKS,
        permit2,
        tokens,
        roles,
        gas_fee_max,
        gas_limit_max,
        rules=rules,
        names={NATIVE: ("ETH", 18)} | (names or {}),
        account=account,
        is_treasury=True,
    )


def read_transfer(policy: KeyPolicy, to: str, call: Call) -> tuple[Act, ...]:
    """The acts of one call of whoever holds the tokens (`policy.owner`). Raises SignerError for whatever else."""
    if not call.data:
        return (_payment(policy, NATIVE, to, call.value),)
    if call.value:
        raise SignerError("policy: a treasury's call carries data or value, not both")
    if to == policy.owner and SWAP_OWNER.is_in(call.data):
        _, old, new = SWAP_OWNER.read(call.data)
        if new in (old, NO_HOOKS, policy.owner):
            raise SignerError(f"policy: {new} cannot become an owner of {to}")
        return (Act("owners", to, to=new), Act("revoke", to, to=old))
    if to in policy.tokens and TRANSFER.is_in(call.data):
        return (_payment(policy, to, *TRANSFER.read(call.data)),)
    if to in policy.tokens and APPROVE.is_in(call.data):
        spender, units = APPROVE.read(call.data)
        if units:
            raise SignerError("policy: a treasury takes approvals back and gives none")
        return (Act("revoke", to, to, to=spender),)
    if to == policy.permit2 and LOCKDOWN.is_in(call.data):
        (pairs,) = LOCKDOWN.read(call.data)
        if not 0 < len(pairs) <= PAIRS_MAX:
            raise SignerError(f"policy: Permit2 is told of 1 to {PAIRS_MAX} rights to take away")
        return tuple(Act("revoke", to, token, to=spender) for token, spender in pairs)
    if to in policy.contracts and ASSIGN_ROLES.is_in(call.data):
        member, keys, are_members = ASSIGN_ROLES.read(call.data)
        if any(are_members) or not keys or len(keys) != len(are_members):
            raise SignerError("policy: a treasury takes roles away and gives none")
        return (Act("revoke", to, to=member),)
    raise SignerError(
        f"policy: 0x{call.data[:4].hex()} at {to} is nothing that a treasury does; it transfers, revokes, swaps owners"
    )


def _payment(policy: KeyPolicy, token: str, to: str, units: int) -> Act:
    if norm(to) in (NO_HOOKS, token, policy.owner) or not units:
        raise SignerError(f"policy: a transfer of {units} units to {to} pays nobody")
    return Act("transfer", token, token, units, to=to)
