"""The markets of Binance spot as the exchange rules them now, and its clock against ours."""

from collections.abc import Mapping
from typing import Any

import msgspec

from agent.domain.errors import ConfigError
from agent.domain.instrument import Instrument
from agent.venues.ccxt_exchange import binance_rest as rest
from agent.venues.ccxt_exchange.client import Client, RefusedRequestError

DEFAULT_FEE_PIPS = 1_000
TRADING = "TRADING"


class Rules(msgspec.Struct, frozen=True):
    """By the exchange's symbol: the instruments, and the ways in which the exchange can keep us from trading with ourselves."""

    instruments: Mapping[str, Instrument]
    preventions: Mapping[str, tuple[str, ...]]


async def read_rules(client: Client, known: Rules | None = None) -> Rules:
    """Read them. At first a closed market is an error (ConfigError); later it is a condition: its orders can be cancelled."""
    wanted = {symbol.replace("/", ""): symbol for symbol in client.config.symbols}
    listed = await _listed(client, wanted)
    closed = [wanted[symbol] for symbol in wanted if symbol not in listed or listed[symbol].status != TRADING]
    if closed and known is None:
        raise ConfigError(f"{client.name}: {closed[0]} is not traded there now; correct symbols in the config")
    client.conditions.set("halt", f"{', '.join(closed)} is not traded now" if closed else "")
    groups, pips = client.config.groups, await _fee_pips(client)
    instruments: dict[str, Instrument] = {}
    preventions: dict[str, tuple[str, ...]] = {}
    for symbol, written in wanted.items():
        view = listed.get(symbol)
        if view is None:
            assert known is not None, "at first a market that is not listed is an error"
            instruments[symbol], preventions[symbol] = known.instruments[symbol], ()
            continue
        for coin in (view.base_asset, view.quote_asset):
            if coin not in groups:
                raise ConfigError(f'{client.name}: groups does not say what {coin} counts as; add {coin} = "{coin}"')
        instruments[symbol] = rest.instrument_of(view, client.name, written, groups, *pips)
        preventions[symbol] = view.allowed_self_trade_prevention_modes
    return Rules(instruments, preventions)


async def measure(client: Client) -> None:
    """Set the exchange's clock against ours. Raises VenueError."""

    def server_time(reply: Any) -> int:
        return rest.read(reply, dict[str, int])["serverTime"]

    await client.measure_offset(client.exchange.public_get_time, server_time)


async def _listed(client: Client, wanted: Mapping[str, str]) -> dict[str, rest.SymbolView]:
    asked = {"symbols": msgspec.json.encode(sorted(wanted)).decode()}
    try:
        info = rest.read(await client.call(client.exchange.public_get_exchangeinfo, asked, weight=20), rest.ExchangeView)
    except RefusedRequestError as refusal:
        if refusal.code != rest.BAD_SYMBOL:
            raise
        raise ConfigError(
            f"{client.name}: one of {', '.join(client.config.symbols)} does not exist there; correct symbols"
        ) from None
    return {one.symbol: one for one in info.symbols if one.symbol in wanted}


async def _fee_pips(client: Client) -> tuple[int, int]:
    """What a taker and a maker pay: the config's word, else the account's rate, else the usual ten basis points."""
    taker, maker = client.config.taker_fee_pips, client.config.maker_fee_pips
    if taker is not None and maker is not None:
        return taker, maker
    if client.key is None:
        taker = DEFAULT_FEE_PIPS if taker is None else taker
        return taker, taker if maker is None else maker
    reply = await client.call(client.exchange.private_get_account, {"omitZeroBalances": "true"}, weight=20)
    rates = rest.read(reply, rest.AccountView).commission_rates
    told = (rest.fee_pips(rates.taker), rest.fee_pips(rates.maker)) if rates else (DEFAULT_FEE_PIPS, DEFAULT_FEE_PIPS)
    return told[0] if taker is None else taker, told[1] if maker is None else maker
