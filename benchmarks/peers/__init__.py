"""The programs that we are measured beside, each in a locked environment of its own that never burdens the product.

An environment is a folder here: its lock file, and a `serve` program that answers questions over a pipe and times itself, so that
no pipe is in its times. `python -m benchmarks peers` installs them into the cache folder; nothing of theirs is in this repository.
"""
