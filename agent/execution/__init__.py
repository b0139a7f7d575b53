"""How a parent order is worked: when to trade how much, and which child orders a route becomes. Pure."""
