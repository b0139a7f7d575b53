"""An order, played over recorded or modelled markets by the agent itself in virtual time: a backtest by the same code."""
