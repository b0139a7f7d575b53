"""Every record of the journal, told as what happened: one line of the log and one count."""

from agent import observe
from agent.domain.events import (
    AttemptApproved,
    BalanceAdopted,
    EngineStarted,
    EngineStopped,
    FillReversed,
    GasPaid,
    Halted,
    IntentAccepted,
    IntentAmended,
    IntentCancelled,
    IntentContinued,
    IntentEnded,
    IntentPaused,
    IntentRefused,
    IntentTrailed,
    IntentTriggered,
    Marked,
    NonceAdopted,
    OrderAmended,
    OrderApproved,
    OrderClaimed,
    OrderFilled,
    OrderRefused,
    OrderReorged,
    OrderReported,
    OrderSent,
    Reconciled,
    Record,
    Resumed,
    Routed,
    RouteExplained,
    Surrounded,
    VenueConnected,
    VenueDisconnected,
    VenueStatus,
    WholeQuoted,
)
from agent.domain.order import OrderState


def recorded(record: Record) -> None:
    """Tells whatever was just journaled, by its kind. Breaks are told by `break_found`."""
    match record.event:
        case EngineStarted(run_id=run_id, version=version, config_hash=config_hash):
            observe.engine_started(run_id, version, config_hash)
        case EngineStopped(reason=reason):
            observe.engine_stopped(reason)
        case Halted(scope=scope, reason=reason):
            observe.halted(scope, reason)
        case Resumed(scope=scope, reason=reason):
            observe.resumed(scope, reason)
        case VenueConnected(venue=venue):
            observe.venue_connected(venue)
        case VenueDisconnected(venue=venue, reason=reason):
            observe.venue_disconnected(venue, reason)
        case BalanceAdopted(account=account, venue=venue, amount=amount, cause=cause):
            observe.balance_adopted(account, venue, amount, cause)
        case NonceAdopted(venue=venue, nonce=nonce, cause=cause):
            observe.nonce_adopted(venue, nonce, cause)
        case VenueStatus(venue=venue, status=status, reason=reason):
            observe.venue_status(venue, status, reason)
        case Reconciled(checked=checked, breaks=breaks):
            observe.reconciled(checked, len(breaks))
        case IntentPaused() | IntentContinued() | IntentAmended() | IntentTriggered() | IntentTrailed() as event:
            _recorded_turn_of_intent(event)
        case IntentAccepted() | IntentRefused() | IntentCancelled() | IntentEnded() | Routed() | RouteExplained() as event:
            _recorded_intent(event)
        case OrderApproved() | OrderRefused() | OrderSent() | OrderReported() | OrderFilled() | GasPaid() as event:
            _recorded_order(event)
        case FillReversed() | OrderAmended() | OrderReorged() | AttemptApproved() | OrderClaimed() | Surrounded() as event:
            _recorded_turn(event)
        case Marked(order_id=order_id, after_ns=after_ns, mid=mid):
            observe.marked(order_id, after_ns, mid)
        case WholeQuoted(intent_id=intent_id, quantity=quantity, quote=quote):
            observe.whole_quoted(intent_id, quantity, quote)


def _recorded_turn(event: FillReversed | OrderAmended | OrderReorged | AttemptApproved | OrderClaimed | Surrounded) -> None:
    """What seldom happens to an order, and what a person wants to see when it does."""
    match event:
        case FillReversed(order_id=order_id, key=key, reason=reason):
            observe.fill_reversed(order_id, key, reason)
        case OrderAmended(order_id=order_id, size=size, reason=reason):
            observe.order_amended(order_id, size, reason)
        case OrderReorged(order_id=order_id, tx_hash=tx_hash, block=block):
            observe.order_reorged(order_id, tx_hash, block)
        case AttemptApproved(approved=approved, why=why):
            observe.attempt_approved(approved.plan, approved.attempt, why)
        case OrderClaimed(plan=plan, reason=reason):
            observe.order_claimed(plan.order_id, plan.venue, reason)
        case Surrounded(order_id=order_id, instrument=instrument, by=by, received_less=received_less):
            observe.surrounded(order_id, instrument, by, received_less)


def _recorded_intent(event: IntentAccepted | IntentRefused | IntentCancelled | IntentEnded | Routed | RouteExplained) -> None:
    match event:
        case IntentAccepted(intent=intent, arrival=arrival):
            observe.intent_accepted(intent, arrival)
        case IntentRefused(intent=intent, reasons=reasons):
            observe.intent_refused(intent, reasons)
        case IntentCancelled(intent_id=intent_id):
            observe.intent_cancelled(intent_id)
        case IntentEnded(intent_id=intent_id, status=status, reason=reason):
            observe.intent_ended(intent_id, status, reason)
        case Routed():
            observe.routed(event)
        case RouteExplained():
            observe.route_explained(event)


def _recorded_turn_of_intent(event: IntentPaused | IntentContinued | IntentAmended | IntentTriggered | IntentTrailed) -> None:
    match event:
        case IntentPaused(intent_id=intent_id):
            observe.intent_turned("paused", intent_id)
        case IntentContinued(intent_id=intent_id):
            observe.intent_turned("continued", intent_id)
        case IntentAmended(intent=intent):
            observe.intent_turned("amended", intent.intent_id, quantity=intent.quantity, deadline_ns=intent.deadline_ns)
        case IntentTriggered(intent_id=intent_id, price=price, arrival=arrival):
            observe.intent_turned("triggered", intent_id, price=price, arrival=arrival)
        case IntentTrailed(intent_id=intent_id, best=best):
            observe.intent_turned("trailed", intent_id, best=best)


def _recorded_order(event: OrderApproved | OrderRefused | OrderSent | OrderReported | OrderFilled | GasPaid) -> None:
    match event:
        case OrderApproved(approved=approved):
            observe.order_approved(approved.plan, approved.nonce)
        case OrderRefused(plan=plan, reasons=reasons):
            observe.risk_refused(plan, reasons)
        case OrderSent(order_id=order_id, tx_hash=tx_hash):
            observe.order_sent(order_id, tx_hash)
        case OrderReported(order_id=order_id, state=state, reason=reason):
            if state is OrderState.UNKNOWN:
                observe.order_unknown(order_id, reason)
            else:
                observe.order_reported(order_id, state, reason)
        case OrderFilled(fill=fill):
            observe.order_filled(fill)
        case GasPaid(order_id=order_id, amount=amount, gas_used=gas_used, tx_hash=tx_hash):
            observe.gas_paid(order_id, amount, gas_used, tx_hash)
