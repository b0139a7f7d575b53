"""How a vault takes a request: judged by the policy once, for all who sign later, and filed as a ticket before anything happens.

What it takes out of windows is set aside with the ticket and given back only when the ticket certainly will not happen.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from agent.domain.errors import SignerError
from agent.domain.plan import Call
from agent.keys.accounts.safe import CALLS_MAX
from agent.keys.bounds import Act, KeyPolicy
from agent.keys.policy import acts_of
from agent.keys.rules import charged, told
from agent.keys.spent import Spent
from agent.keys.tickets import SECOND_NS, Filed, Tickets, id_of
from agent.ports import Chain, Custody, Ticket, TicketState

LASTS_S = 7 * 86_400

Tier = Literal["hot", "warm", "cold"]


class Means(msgspec.Struct, frozen=True):
    """What a vault works with. `policy`: a treasury's, with the user's rules. `lasts_s`: how long people may take.

    `tier`: what the settings say of the account; empty: as is usual for its kind.
    """

    name: str
    kind: str
    tickets: Tickets
    policy: KeyPolicy
    chain: Chain
    spent: Spent | None = None
    lasts_s: int = LASTS_S
    tier: Tier | None = None

    def custody(self, usual: Custody) -> Custody:
        """Of the account, by its own tier."""
        return msgspec.structs.replace(usual, tier=self.tier) if self.tier else usual


def filed(means: Means, request: str, calls: Sequence[Call], calls_max: int = CALLS_MAX, **notes: str) -> tuple[Filed, bool]:
    """The ticket of a request and whether it is new. Raises SignerError for what the policy does not allow; then there is none."""
    policy, tickets = means.policy, means.tickets
    known = tickets.known(means.name, request, policy.chain_id, calls)
    if known is not None:
        return known, False
    acts = check(means, calls, calls_max)
    charges = charged(policy.rules, acts, policy.names)
    ticket_id, now_ns = id_of(means.name, request), tickets.now_ns()
    meaning = tuple(told(act, policy.names) for act in acts)
    ends_ns = now_ns + means.lasts_s * SECOND_NS
    ticket = Ticket(ticket_id, means.name, means.kind, request, "waiting", meaning, now_ns, ends_ns)
    if charges and means.spent is None:
        raise SignerError(f"policy: rule {charges[0].rule.name!r} has a window, and nobody keeps its count here")
    held = means.spent.reserve(ticket_id, charges) if charges and means.spent is not None else None
    try:
        return tickets.file(Filed(ticket, policy.chain_id, tuple(calls), notes)), True
    except SignerError:
        if held is not None:
            held.release()
        raise


def check(means: Means, calls: Sequence[Call], calls_max: int = CALLS_MAX) -> tuple[Act, ...]:
    """What the calls do, or SignerError for what no rule allows. Windows are not looked at."""
    if not 0 < len(calls) <= calls_max:
        raise SignerError(f"{means.name} carries out 1 to {calls_max} calls at once, not {len(calls)}")
    acts = acts_of(means.policy, calls)
    charged(means.policy.rules, acts, means.policy.names)
    return acts


def ended(means: Means, one: Filed, state: TicketState, reason: str) -> Filed:
    """Refused or expired, and certain not to happen any more: its room in windows is free again."""
    moved = means.tickets.moved(one, state, reason)
    policy = means.policy
    charges = charged(policy.rules, acts_of(policy, one.calls), policy.names) if means.spent is not None else ()
    if charges and means.spent is not None:
        means.spent.put_back([((charge.rule.name, charge.token, one.ticket.id), None) for charge in charges])
    return moved


def is_over(means: Means, one: Filed) -> bool:
    """Whether people took longer than they may."""
    return means.tickets.now_ns() >= one.ticket.expires_ns


def without_windows(policy: KeyPolicy) -> KeyPolicy:
    """For the keys behind a vault: the ticket was charged once, however many of them sign."""
    rules = tuple(msgspec.structs.replace(rule, window_s=0, window_max=None) for rule in policy.rules)
    return msgspec.structs.replace(policy, rules=rules)
