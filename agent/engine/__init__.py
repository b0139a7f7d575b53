"""The one writer: facts in, journal first, state from the journal alone, decisions out."""
