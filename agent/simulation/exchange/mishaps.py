"""Faults that happen at once when they are armed: connections cut, trades taken back, rules changed. The rest waits in `faults`."""

from __future__ import annotations

from agent.simulation.exchange import faults as names
from agent.simulation.exchange.accounts import HOUSE
from agent.simulation.exchange.corrections import amend_by_hand, bust, trade_once_more
from agent.simulation.exchange.faults import Fault
from agent.simulation.exchange.filters import units
from agent.simulation.exchange.request import Wires
from agent.simulation.exchange.venue import Venue

STREAM_ENDS = ("eventStreamTerminated", "listenKeyExpired", "serverShutdown")


def arm(wires: Wires, fault: Fault) -> None:
    """Arm a fault, or let it happen now if it is one of those. ValueError if it makes no sense; then nothing happened."""
    venue, now_ms = wires.venue, wires.now_ms()
    match fault.name:
        case names.DISCONNECT:
            wires.hub.cut(fault.kind)
        case names.END_STREAM:
            if fault.kind not in STREAM_ENDS:
                raise ValueError(f"kind is one of {', '.join(STREAM_ENDS)}")
            wires.hub.end(fault.kind, now_ms)
        case names.REVOKED_KEY:
            wires.faults.arm(fault)
            wires.hub.cut("user")
        case names.WITHDRAWAL_RIGHT:
            owners = {key.account for key in venue.accounts.keys.values()}
            venue.accounts.withdrawers |= {fault.account} if fault.account else owners
        case names.BUST_TRADE:
            bust(venue, _account(venue, fault), _symbol(venue, fault), now_ms)
        case names.OVERFILL:
            trade_once_more(venue, _account(venue, fault), _symbol(venue, fault), "FILLED", now_ms)
        case names.LATE_FILL:
            trade_once_more(venue, _account(venue, fault), _symbol(venue, fault), "CANCELED", now_ms)
        case names.AMEND_ORDER:
            account, symbol = _account(venue, fault), _symbol(venue, fault)
            amend_by_hand(venue, account, symbol, now_ms, is_same_id=fault.kind == "same_id")
        case names.CHANGE_FILTERS:
            _change_filters(venue, _symbol(venue, fault), fault)
        case names.HALT_SYMBOL | names.RESUME_SYMBOL:
            venue.change_rules(_symbol(venue, fault), status="BREAK" if fault.name == names.HALT_SYMBOL else "TRADING")
        case _:
            wires.faults.arm(fault)


def _account(venue: Venue, fault: Fault) -> str:
    """The account that is meant: the named one, or the only one that has a key."""
    owners = sorted({key.account for key in venue.accounts.keys.values()} - {HOUSE})
    if fault.account:
        return fault.account
    if len(owners) != 1:
        raise ValueError(f"name the account: {', '.join(owners)[:120] or 'none has a key yet'}")
    return owners[0]


def _symbol(venue: Venue, fault: Fault) -> str:
    symbol = fault.symbol or next(iter(venue.rules))
    if symbol not in venue.rules:
        raise ValueError(f"no symbol is named '{symbol[:20]}'; there are {', '.join(venue.rules)}")
    return symbol


def _change_filters(venue: Venue, symbol: str, fault: Fault) -> None:
    rules = venue.rules[symbol]
    changes = {}
    for name, text, step_units in (("tick_step", fault.tick, rules.tick_units), ("lot_step", fault.lot, rules.lot_units)):
        if text:
            steps, rest = divmod(units(text), step_units)
            if rest or not steps:
                raise ValueError(f"'{text[:24]}' is no multiple of what the engine counts in; choose a coarser one")
            changes[name] = steps
    venue.change_rules(symbol, **changes)
