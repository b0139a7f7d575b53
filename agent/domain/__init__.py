"""The vocabulary: immutable values that every other part of the program speaks in. No I/O, no clock, no policy."""
