"""Where a key can lie, one file for each kind: `kind = "…"` in `[wallet]` is the name of the file. There is no registry.

Each file has `CUSTODY`, what it is worth; `Config`, what the user writes about it; and `open_key(name, config, secrets)`, which
returns a key (`agent.keys.remote.Key`) that has shown that it is the one. What each keeps from a thief is told in docs/keys.md.
"""
