"""Uniswap v2, v3 and v4 on one chain: `kind = "uniswap"`. All legs of a plan travel in one transaction of the user's own wallet."""

from agent.venues.uniswap.config import BATCH_BASE_GAS, Config
from agent.venues.uniswap.holder import fetch_role
from agent.venues.uniswap.venue import Uniswap, connect, pins_of

__all__ = ["BATCH_BASE_GAS", "Config", "Uniswap", "connect", "fetch_role", "pins_of"]
