"""graval's own typed errors: each has a stable code, a sentence and, where it helps, a hint.

graval knows nothing of chutes_core; whoever calls it wraps these at its own border.
"""


class GravalError(Exception):
    """Base of graval's errors.

    Args:
        code: stable snake_case identifier, e.g. ``cuda_missing``.
        message: what happened, in one sentence, without secrets.
        hint: what to do next; empty when there is nothing to do.
    """

    def __init__(self, code: str, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} [{self.code}]" + (f" ({self.hint})" if self.hint else "")


class Malformed(GravalError):
    """Bytes are not the canonical form of what they should be."""


class OutOfRange(GravalError):
    """A parameter is outside what the protocol allows."""


class UnknownDevice(GravalError):
    """A device or class name is not in the table of known GPUs."""


class NoReference(GravalError):
    """There is no timing reference for this class of GPU and profile."""


class RoundTripTooLong(GravalError):
    """The path to the GPU is too slow for a deadline that still means something."""


class BackendUnavailable(GravalError):
    """The prover's backend cannot run here: no CUDA, no torch, no Triton."""


class NotEnoughMemory(GravalError):
    """The device cannot hold the rows that the challenge asks for."""


class ProtocolViolation(GravalError):
    """A message came out of order, was too large, or belongs to another challenge."""


class SelftestFailed(GravalError):
    """The arithmetic on this machine differs from the golden vectors."""
