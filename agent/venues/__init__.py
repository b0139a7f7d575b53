"""Places to trade: one package per kind, named as in the settings. It exports `Config` and `connect(name, config, tools)`."""
