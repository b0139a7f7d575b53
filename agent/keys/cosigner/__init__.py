"""A party of a shared key: its home, how it talks to the other parties, and the daemon that signs within its own policy."""
