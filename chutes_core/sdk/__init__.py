"""What a chute file imports: Image, Chute, cords, NodeSelector.

Invariant: importing this package imports nothing else; each noun lives in the module of its name.
"""
