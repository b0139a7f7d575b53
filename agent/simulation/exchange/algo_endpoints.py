"""The endpoints of the exchange's own TWAP, in its own words. Source: Binance spot algo API documentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

from agent.simulation.exchange import wire
from agent.simulation.exchange.algos import Algo
from agent.simulation.exchange.filters import Params, integer
from agent.simulation.exchange.matching import BUY, Order
from agent.simulation.exchange.venue import Venue

PAGE_MAX: Final = 100
T = TypeVar("T")


def new_twap(venue: Venue, account: str, params: Params, now_ms: int) -> wire.Payload:
    algo = venue.algos.place(account, params, now_ms)
    return {"clientAlgoId": algo.client_id, "success": True, "code": 0, "msg": "OK"}


def cancel_algo(venue: Venue, account: str, params: Params, now_ms: int) -> wire.Payload:
    algo = venue.algos.cancel(account, integer(params, "algoId"), now_ms)
    return {"algoId": algo.id, "success": True, "code": 0, "msg": "OK"}


def open_algos(venue: Venue, account: str, _params: Params, _now_ms: int) -> wire.Payload:
    found = venue.algos.open(account)
    return {"total": len(found), "orders": [_shown(venue, one) for one in found]}


def past_algos(venue: Venue, account: str, params: Params, _now_ms: int) -> wire.Payload:
    first, last = integer(params, "startTime", 0), integer(params, "endTime", 10**18)
    found = [one for one in venue.algos.ended(account) if first <= one.booked_ms <= last]
    found = [one for one in found if params.get("symbol", one.symbol) == one.symbol]
    return {"total": len(found), "orders": [_shown(venue, one) for one in _page(found, params)]}


def sub_orders(venue: Venue, account: str, params: Params, _now_ms: int) -> wire.Payload:
    algo = venue.algos.find(account, integer(params, "algoId"))
    rules = venue.rules[algo.symbol]
    numbered = list(enumerate(algo.subs, 1))
    return {
        "total": len(numbered),
        "executedQty": wire.text(rules.base_units(algo.filled_lots)),
        "executedAmt": wire.text(rules.quote_units(algo.value)),
        "subOrders": [_sub(venue, algo, number, order) for number, order in _page(numbered, params)],
    }


def _page(rows: Sequence[T], params: Params) -> Sequence[T]:
    size = integer(params, "pageSize", PAGE_MAX, 1, PAGE_MAX)
    first = (integer(params, "page", 1, 1) - 1) * size
    return rows[first : first + size]


def _shown(venue: Venue, algo: Algo) -> wire.Payload:
    rules, lots = venue.rules[algo.symbol], algo.filled_lots
    return {
        "algoId": algo.id, "symbol": algo.symbol, "side": _side(algo.side), "totalQty": wire.text(rules.base_units(algo.size_lots)),
        "executedQty": wire.text(rules.base_units(lots)), "executedAmt": wire.text(rules.quote_units(algo.value)),
        "avgPrice": wire.text(algo.value // lots * rules.tick_units if lots else 0), "clientAlgoId": algo.client_id,
        "bookTime": algo.booked_ms, "endTime": algo.end_ms, "algoStatus": algo.status, "algoType": "TWAP", "urgency": "LOW",
    }  # fmt: skip


def _sub(venue: Venue, algo: Algo, number: int, order: Order) -> wire.Payload:
    rules, fills = venue.rules[algo.symbol], [one for one in venue.fills.get(algo.account, ()) if one.order_id == order.id]
    return {
        "algoId": algo.id, "orderId": order.id, "orderStatus": order.status, "subId": number, "symbol": algo.symbol,
        "executedQty": wire.text(rules.base_units(order.filled_lots)), "executedAmt": wire.text(rules.quote_units(order.value)),
        "feeAmt": "-" + wire.text(sum(one.fee_units for one in fills)), "bookTime": order.created_ms,
        "feeAsset": fills[0].fee_asset if fills else (rules.base if algo.side == BUY else rules.quote),
        "avgPrice": wire.text(order.value // order.filled_lots * rules.tick_units if order.filled_lots else 0),
        "side": _side(algo.side), "timeInForce": "IMMEDIATE_OR_CANCEL", "origQty": wire.text(rules.base_units(order.size_lots)),
    }  # fmt: skip


def _side(side: int) -> str:
    return "BUY" if side == BUY else "SELL"
