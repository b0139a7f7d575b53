"""What is owned and where: double entry, so that nothing appears or disappears without a counter-entry."""
