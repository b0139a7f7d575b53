"""The sandbox: a local exchange and a local chain that behave like the real ones, for trying and for testing."""
