"""How the validator's parts are put together, one file per group; app.py calls them in order.

Nothing is decided here and nothing runs: a function takes what exists and returns what it made.
"""
