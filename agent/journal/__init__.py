"""The record of everything that happened and was decided: append-only, gapless, and each record chained to the one before."""
