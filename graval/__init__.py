"""graval: proof of GPU compute and memory, verified by a CPU. Knows nothing of chutes_core.

Read in this order: `params` (what is asked for), `prf` (the arithmetic), `challenge` (the
messages), `verifier` (build and check), `prover` (fill and find), docs/graval.md (why).
Importing this package imports nothing else: numpy is loaded by `prf`, torch by a CUDA backend.
"""

VERSION = 1
"""Protocol version: it is part of every hash and of every canonical message."""
