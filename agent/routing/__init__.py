"""Where to trade how much: the split of one order over books and pools that is best after every cost, and why."""
