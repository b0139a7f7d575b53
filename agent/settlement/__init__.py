"""Does the world agree with the books? Reconciliation, and how final a trade is."""
