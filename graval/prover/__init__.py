"""The prover: fills a device's memory, finds needles, answers legs.

`python -m graval.prover` is a child process that speaks `graval.messages` on stdin and stdout; it
exits before any other user of the GPU starts, so that all memory returns. `prove` is the protocol,
`backend` the seam, `numpy_backend`, `torch_backend` and `triton_backend` the devices. Importing
this package loads none of them.
"""
