"""Accounts that live on a chain: contracts that hold the tokens and carry out calls which a key tells them. Pure bytes, no network.

One file for each kind says how calls are wrapped into what the key signs, what exactly is signed, and how the bytes are read back;
`agent.keys.wrapped` reads them for the policy, so that a wrapped call is judged as what it does.
"""
