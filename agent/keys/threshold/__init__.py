"""One key that nobody holds: t of n parties, each in a process of its own, sign together for one Ethereum address."""
