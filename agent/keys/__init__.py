"""Keys: the only part that can sign. What is signed is decoded first and held against a policy; a key never leaves."""
