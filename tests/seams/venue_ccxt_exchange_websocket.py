"""The same exchange, with orders over its WebSocket API."""

import contextlib
from collections.abc import AsyncIterator

import venue_ccxt_exchange
from venue_case import Case


@contextlib.asynccontextmanager
async def open_case() -> AsyncIterator[Case]:
    async with venue_ccxt_exchange.open_case(orders_over="websocket") as case:
        yield case
