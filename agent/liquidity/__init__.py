"""Liquidity: how much comes out for this much in, and what the source looks like afterwards. Pure and exact to the unit."""
