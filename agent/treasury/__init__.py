"""How much may lie where: which coins are moved from hot to cold and back, and how many."""
