"""One file for each kind of vault: an account that answers with tickets. Its name in the settings is the file's name here.

Each has a `Config`, a `CUSTODY` and `open_vault(means, config, keys, executor, secrets)`. None of them is for orders: they wait.
"""
