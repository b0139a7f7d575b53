"""The sandbox: a local exchange, a local chain and injected faults, so that everything can be tried without money or keys."""
