"""Calls that begin alike go to the same instance of an LLM, whose cache knows their beginning.

Path: fast and forward ask for a prefix, `Router.preferred` for an instance. The instance is the one
with the highest hash of prefix and launch (rendezvous hashing: Thaler and Ravishankar, IEEE/ACM
Trans. Networking 6(1), 1998), so that an instance that comes or goes moves only its own share.
Invariant: a pure function of the call's body and the instances' names; nothing of the text is kept.
"""

import hashlib
from collections.abc import Iterable

from chutes_core.validator.domain.chutes import Cord
from chutes_core.validator.domain.snapshot import ChuteView

TEMPLATES = frozenset(("vllm", "sglang"))
PATHS = frozenset(("/v1/chat/completions", "/v1/completions"))
PREFIX_BYTES = 256  # of the messages or the prompt; a system prompt is longer as a rule
_NAMES = (b'"messages"', b'"prompt"')


def prefix_of(chute: ChuteView, cord: Cord, body: bytes) -> bytes:
    """Return what a call of an LLM begins with; nothing for other calls."""
    if chute.standard_template not in TEMPLATES or cord.public_api_path not in PATHS:
        return b""
    for name in _NAMES:
        at = body.find(name)
        if at >= 0:
            return body[at : at + PREFIX_BYTES]
    return b""


def first_of(prefix: bytes, launch_ids: Iterable[str]) -> str:
    """Return the launch that calls with this prefix belong to, of at least one."""
    return max(launch_ids, key=lambda launch_id: (_weight(prefix, launch_id), launch_id))


def _weight(prefix: bytes, launch_id: str) -> bytes:
    return hashlib.blake2b(prefix, key=launch_id.encode()[:64], digest_size=8).digest()
