"""Places to trade: one package per kind, named as `kind` in the settings, that exports `Config` and `connect(name, config, tools)`."""
