"""The sandbox chain: real contracts on a local node, so that a trade here behaves as it would on the public chain.

`start_chain("anvil")` or `start_chain("eth-tester")` gives a running chain with WETH, USDT, USDC, Uniswap v2, v3 and v4,
Permit2 and the UniversalRouter, with liquidity in the pools, at the addresses of `deployments/31337.json`.
"""
