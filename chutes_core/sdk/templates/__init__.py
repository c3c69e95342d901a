"""Templates: whole chutes made by one call (vLLM, SGLang, diffusion, embedding).

Invariant: each is a module of its own, imported when a chute file asks for it; none imports what
only its image has.
"""
