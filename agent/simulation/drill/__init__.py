"""The drill: whole days of the agent on virtual time, one thread, from one number, with two exchanges and a chain that misbehave.

What the exchanges and the chain hold is the truth, and it is plain data: it can be written down and outlives the agent's process.
"""
