"""Pre-trade risk: the last word before a key is asked. Pure."""
