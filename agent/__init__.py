"""Isthmus: one order and execution agent over centralised exchanges and on-chain markets, with the user's own keys."""

__version__ = "0.1.0"
