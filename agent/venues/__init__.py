"""Places to trade. One file per kind of venue: it exports `Config`, `connect` and `parse`; the other files are parts of those."""
