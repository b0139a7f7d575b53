"""The algorithms, one file each; the name of the file is the name of the algorithm. Pure.

A file says four things: `Parameters` (what may be set, with bounds and words), `step` (what to do now, from what is seen),
`stale` (why a child that rests should go), and `plan` (what should be traded by when; None where there is no schedule).
Nothing is remembered between two steps but what the journal says, so a restart goes on where the order stands.
"""
