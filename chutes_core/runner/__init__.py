"""Inside a chute's container: `python -m chutes_core.runner`, the instance side of a launch.

Reading order: `__main__` (entrance), `settings`, `app` (who is wired to whom), `server` (listener),
`identity` (keys of the launch), `link` and `session` (frames of one connection), `proof` and
`prover` (the graval children), `loader` (user code), `executor`, `exchange` and `asgi` (one call),
`lifecycle` (when and how it ends).

Two threads: the main thread runs the user's chute on an event loop of its own (`chute_loop`),
where user code may block, import and install what it likes; a second thread runs the listener and
every sealed connection, so leases, stops and pings never wait for user code.
Invariant: the runner never dials out and holds no signing key.
"""
