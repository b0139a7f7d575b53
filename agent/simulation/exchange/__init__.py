"""The sandbox exchange: a real matching engine behind the wire protocol of Binance spot.

Unmodified clients trade on it by changing a URL. `start_exchange` is the way in; `faults.FAULTS` lists what can go wrong.
"""

from agent.simulation.exchange.sandbox import ETHUSDT, Exchange, ExchangeConfig, SymbolSpec, start_exchange

__all__ = ["ETHUSDT", "Exchange", "ExchangeConfig", "SymbolSpec", "start_exchange"]
