"""graval: proof of GPU compute and memory, verified by a CPU. Knows nothing of chutes_core."""
