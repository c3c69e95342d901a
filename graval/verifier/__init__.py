"""The verifier: numpy on a CPU, before and after; no GPU, no torch.

`build_challenge` makes both legs and both answers before anything is sent; `Barrier` says when
leg 2 may go out; `check` compares and judges; `audit` lets anyone repeat the choice of needles.
"""

from graval.verifier.barrier import Barrier
from graval.verifier.build import Challenge, ChallengeRecord, audit, build_challenge
from graval.verifier.check import answer_digest_of, check, session_key_material

__all__ = [
    "Barrier",
    "Challenge",
    "ChallengeRecord",
    "answer_digest_of",
    "audit",
    "build_challenge",
    "check",
    "session_key_material",
]
