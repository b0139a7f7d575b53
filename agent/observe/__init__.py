"""What the agent tells its operator: one function for each thing that can happen, which logs it and counts it.

Logs are JSON, one line each, on stderr or in a file. Metrics are counters in `registry`, for Prometheus. Neither ever holds a
secret: only plain values are printed at all, and text that looks like a key, a signature, a token or a path in a URL is cut out.
Telling must not disturb trading: a line that cannot be written is counted (`isthmus_log_lines_lost`) and forgotten.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import structlog
from prometheus_client import CollectorRegistry, Counter, generate_latest

from agent.domain.amount import Amount
from agent.domain.errors import ConfigError
from agent.domain.events import Break, Routed, RouteExplained
from agent.domain.intent import Intent
from agent.domain.order import Fill, OrderState
from agent.domain.plan import Plan, Reason
from agent.domain.price import Price
from agent.observe.redaction import redact

registry = CollectorRegistry()


def open_log(path: Path | None = None, level: str = "info") -> None:
    """Where lines go from now on: a file (0600, appended to) or stderr. `level`: debug, info, warning or error."""
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ConfigError(f"log level {level!r} is unknown; use debug, info, warning or error")
    stream = None
    if path is not None:
        try:
            stream = os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a", encoding="utf-8")
        except OSError as e:
            raise ConfigError(f"the log {path} cannot be opened ({e.strerror}); choose another file") from e
    _lines.turn_to(stream, number)


def metrics_text() -> bytes:
    """Every counter in Prometheus' text format."""
    return generate_latest(registry)


# -- the run -----------------------------------------------------------------------------------------------------------


def engine_started(run_id: str, version: str, config_hash: str) -> None:
    _tell("engine_started", run_id=run_id, version=version, config_hash=config_hash)


def engine_stopping(reason: str) -> None:
    _tell("engine_stopping", reason=reason)


def engine_stopped(reason: str) -> None:
    _tell("engine_stopped", reason=reason)


def engine_failed(reason: str) -> None:
    """Something broke that should not: the engine stops."""
    _warn("engine_failed", reason=reason)


def journal_stopped(reason: str) -> None:
    """Nothing can be recorded, so nothing is sent any more."""
    _warn("journal_stopped", reason=reason)


def halted(scope: str, reason: str) -> None:
    _warn("halted", {"scope": scope}, reason=reason)


def resumed(scope: str, reason: str) -> None:
    _tell("resumed", {"scope": scope}, reason=reason)


def client_cut_off(client: str, reason: str) -> None:
    """A client read too slowly, or sent what is not allowed."""
    _warn("client_cut_off", client=client, reason=reason)


def signature_given(key: str, kind: str, digest: str) -> None:
    """A signer process signed for an agent. `digest`: the first digits of what was signed."""
    _tell("signature_given", key=key, kind=kind, digest=digest)


def signature_refused(key: str, reason: str) -> None:
    """A signer process was asked for what its policy forbids, or in a way that is none."""
    _warn("signature_refused", key=key, reason=reason)


def ceremony_message_refused(phase: str, sender: int, reason: str) -> None:
    """A party of a shared key sent what its ceremony does not take; dropped, as the right message may still come."""
    _warn("ceremony_message_refused", {"phase": phase}, sender=sender, reason=reason)


def ceremony_failed(phase: str, reason: str, guilty: str) -> None:
    """A ceremony of a shared key ended without a result; `guilty` names who cheated, where that is known."""
    _warn("ceremony_failed", {"phase": phase}, reason=reason, guilty=guilty)


# -- venues ------------------------------------------------------------------------------------------------------------


def venue_connected(venue: str) -> None:
    _tell("venue_connected", {"venue": venue})


def venue_disconnected(venue: str, reason: str) -> None:
    _warn("venue_disconnected", {"venue": venue}, reason=reason)


def venue_status(venue: str, status: str, reason: str) -> None:
    _warn("venue_status", {"venue": venue, "status": status}, reason=reason)


def frame_refused(venue: str, reason: str) -> None:
    """A message from a venue that this program does not understand."""
    _warn("frame_refused", {"venue": venue}, reason=reason)


def query_failed(venue: str, reason: str) -> None:
    """A venue was asked about our orders and did not answer. It is asked again."""
    _warn("query_failed", {"venue": venue}, reason=reason)


def answer_ignored(venue: str, reason: str) -> None:
    """A venue answered what nobody asks any more: too late, twice, or never asked. What became of the order is asked elsewhere."""
    _warn("answer_ignored", {"venue": venue}, reason=reason)


def order_line_lost(venue: str, reason: str) -> None:
    """The connection that orders leave by is down. It is opened again; meanwhile they take the other way."""
    _warn("order_line_lost", {"venue": venue}, reason=reason)


# -- intents -----------------------------------------------------------------------------------------------------------


def intent_accepted(intent: Intent, arrival: Price) -> None:
    _tell("intent_accepted", {"market": intent.market}, **_of(intent), arrival=arrival)


def intent_refused(intent: Intent, reasons: Sequence[Reason]) -> None:
    for reason in reasons:
        _warn("intent_refused", {"code": reason.code}, **_of(intent), market=intent.market, reason=reason.text)


def intent_cancelled(intent_id: str) -> None:
    _tell("intent_cancelled", intent_id=intent_id)


def intent_turned(kind: str, intent_id: str, **fields: Any) -> None:
    """What happens to an order between its beginning and its end: paused, amended, triggered."""
    _tell(f"intent_{kind}", intent_id=intent_id, **fields)


def intent_ended(intent_id: str, status: str, reason: str) -> None:
    _tell("intent_ended", {"status": status}, intent_id=intent_id, reason=reason)


def routed(route: Routed) -> None:
    split = [f"{piece.instrument} {piece.base}" for piece in route.pieces]
    _tell(
        "routed", intent_id=route.intent_id, slice_index=route.slice_index, quantity=route.quantity, split=split, quote=route.quote
    )


def route_explained(words: RouteExplained) -> None:
    _tell("route_explained", intent_id=words.intent_id, slice_index=words.slice_index, whys=list(words.whys))


def whole_quoted(intent_id: str, quantity: Amount, quote: Amount) -> None:
    _tell("whole_quoted", intent_id=intent_id, quantity=quantity, quote=quote)


# -- orders ------------------------------------------------------------------------------------------------------------


def risk_refused(plan: Plan, reasons: Sequence[Reason]) -> None:
    for reason in reasons:
        _warn("risk_refused", {"venue": plan.venue, "code": reason.code}, order_id=plan.order_id, reason=reason.text)


def order_approved(plan: Plan, nonce: int | None) -> None:
    _tell("order_approved", {"venue": plan.venue, "kind": type(plan).__name__}, order_id=plan.order_id, nonce=nonce)


def order_sent(order_id: str, tx_hash: str = "") -> None:
    _tell("order_sent", order_id=order_id, tx_hash=tx_hash)


def order_reported(order_id: str, state: OrderState, reason: str = "") -> None:
    _tell("order_reported", {"state": state.value}, order_id=order_id, reason=reason)


def order_amended(order_id: str, size: Amount, reason: str) -> None:
    _warn("order_amended", order_id=order_id, size=size, reason=reason)


def order_reorged(order_id: str, tx_hash: str, block: int) -> None:
    """A block that held a transaction of ours is gone: what it did is taken back."""
    _warn("order_reorged", order_id=order_id, tx_hash=tx_hash, block=block)


def order_claimed(order_id: str, venue: str, reason: str) -> None:
    _warn("order_claimed", {"venue": venue}, order_id=order_id, reason=reason)


def attempt_approved(plan: Plan, attempt: int, why: str) -> None:
    """Another transaction for the same nonce."""
    _warn("attempt_approved", {"venue": plan.venue}, order_id=plan.order_id, attempt=attempt, why=why)


def attempt_failed(order_id: str, attempt: int, reason: str) -> None:
    """The order stands as it stood; the next attempt comes after a pause."""
    _warn("attempt_failed", order_id=order_id, attempt=attempt, reason=reason)


def order_in_doubt(order_id: str, times: int) -> None:
    """Asked so often, and nobody knows: a person should look. It goes on being asked about."""
    _warn("order_in_doubt", order_id=order_id, times=times)


def fill_reversed(order_id: str, key: str, reason: str) -> None:
    _warn("fill_reversed", order_id=order_id, key=key, reason=reason)


def order_unknown(order_id: str, reason: str) -> None:
    """Sent, and nobody knows what became of it: it is asked for until somebody does."""
    _warn("order_unknown", order_id=order_id, reason=reason)


def order_filled(fill: Fill) -> None:
    text = {"order_id": fill.order_id, "instrument": fill.instrument, "trade_id": fill.trade_id}
    _tell("order_filled", {"venue": fill.venue}, **text, paid=fill.paid, received=fill.received, fee=fill.fee)


def gas_paid(order_id: str, amount: Amount, gas_used: int, tx_hash: str) -> None:
    _tell("gas_paid", order_id=order_id, amount=amount, gas_used=gas_used, tx_hash=tx_hash)


def marked(order_id: str, after_ns: int, mid: Price) -> None:
    """Where the market stood a while after an order's first trade."""
    _tell("marked", order_id=order_id, after_s=after_ns / 10**9, mid=mid)


def surrounded(order_id: str, instrument: str, by: str, received_less: Amount) -> None:
    """Somebody traded around us in one block, and this is what it cost."""
    _warn("surrounded", {"instrument": instrument}, order_id=order_id, by=by, received_less=received_less)


# -- the books ---------------------------------------------------------------------------------------------------------


def balance_adopted(account: str, venue: str, amount: Amount, cause: str) -> None:
    _tell("balance_adopted", {"venue": venue}, account=account, amount=amount, cause=cause)


def nonce_adopted(venue: str, nonce: int, cause: str) -> None:
    _tell("nonce_adopted", {"venue": venue}, nonce=nonce, cause=cause)


def reconciled(checked: int, breaks: int) -> None:
    _tell("reconciled", checked=checked, breaks=breaks)


def break_found(one: Break) -> None:
    text = {"account": one.account, "asset": one.asset, "journal": one.journal, "outside": one.outside}
    _warn("break_found", {"venue": one.venue}, **text, cause=one.cause)


# -- how it is told ----------------------------------------------------------------------------------------------------

# Labels take few values by construction: nothing that a client may choose freely, such as the market of a refused intent.
_LABELS: dict[str, tuple[str, ...]] = {
    "nonce_adopted": ("venue",),
    "order_claimed": ("venue",),
    "attempt_approved": ("venue",),
    "venue_status": ("venue", "status"),
    "halted": ("scope",),
    "resumed": ("scope",),
    "venue_connected": ("venue",),
    "venue_disconnected": ("venue",),
    "frame_refused": ("venue",),
    "query_failed": ("venue",),
    "answer_ignored": ("venue",),
    "order_line_lost": ("venue",),
    "ceremony_message_refused": ("phase",),
    "ceremony_failed": ("phase",),
    "intent_accepted": ("market",),
    "intent_refused": ("code",),
    "intent_ended": ("status",),
    "risk_refused": ("venue", "code"),
    "order_approved": ("venue", "kind"),
    "order_reported": ("state",),
    "order_filled": ("venue",),
    "surrounded": ("instrument",),
    "balance_adopted": ("venue",),
    "break_found": ("venue",),
}
_PLAIN = (
    *("engine_started", "engine_stopping", "engine_stopped", "engine_failed", "journal_stopped", "client_cut_off"),
    *("intent_cancelled", "routed", "route_explained", "whole_quoted", "order_sent", "order_unknown", "gas_paid", "reconciled"),
    *("intent_paused", "intent_continued", "intent_amended", "intent_triggered", "intent_trailed"),
    *("order_amended", "order_reorged", "attempt_failed", "order_in_doubt", "fill_reversed", "marked"),
    *("signature_given", "signature_refused"),
)
_counters = {
    name: Counter(f"isthmus_{name}", f"How often: {name.replace('_', ' ')}.", labels, registry=registry)
    for name, labels in (*_LABELS.items(), *((plain, ()) for plain in _PLAIN))
}
_lost = Counter("isthmus_log_lines_lost", "Log lines that could not be written.", registry=registry)


class _Lines:
    """Owns where lines go. `stream` None is the stderr of the moment, so that a redirected stderr is honoured."""

    def __init__(self) -> None:
        self._stream: TextIO | None = None
        self.level = logging.INFO

    def turn_to(self, stream: TextIO | None, level: int) -> None:
        if self._stream is not None:
            with contextlib.suppress(OSError):  # what a full disk did not take was counted already
                self._stream.close()
        self._stream, self.level = stream, level

    def msg(self, message: str) -> None:
        stream = self._stream or sys.stderr
        try:
            stream.write(message + "\n")
            stream.flush()
        except (OSError, ValueError):  # full disk, closed pipe or closed file
            _lost.inc()

    info = warning = msg


def _redact_all(_logger: Any, _method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return redact(fields)


_lines = _Lines()
_logger = structlog.wrap_logger(
    _lines,
    processors=[
        structlog.processors.add_log_level,
        _redact_all,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.JSONRenderer(),
    ],
    wrapper_class=structlog.BoundLogger,
)


def _tell(event: str, labels: Mapping[str, str] | None = None, **fields: Any) -> None:
    _count(event, labels)
    if _lines.level <= logging.INFO:
        _logger.info(event, **(labels or {}), **fields)


def _warn(event: str, labels: Mapping[str, str] | None = None, **fields: Any) -> None:
    _count(event, labels)
    if _lines.level <= logging.WARNING:
        _logger.warning(event, **(labels or {}), **fields)


def _count(event: str, labels: Mapping[str, str] | None) -> None:
    counter = _counters[event]
    (counter.labels(**labels) if labels else counter).inc()


def _of(intent: Intent) -> dict[str, Any]:
    names = ("intent_id", "account", "strategy", "side", "quantity")
    return {name: getattr(intent, name) for name in names}
