"""How the agent speaks to a blockchain: one checked connection, calls and logs in and out of bytes, fees, nonces, heads, sends."""
