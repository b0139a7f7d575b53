"""Ways in for people and programs. They see the `Desk` port alone."""
