"""Profiles: how much work a challenge asks for; with the references and deadlines of `timing`.

Invariant: a profile is public and fixed by its name, except for `stages`, which grows with the
measured round trip (`timing.stretch`). Source of the figures: docs/graval.md, section 3.
"""

from graval.profile import MAX_LAYERS, MAX_STAGES, MAX_TAGS, PROFILES, ROW_BYTES, Profile, profile
from graval.timing import Deadlines, Reference, deadlines, reference, references, stretch

__all__ = [
    "MAX_LAYERS",
    "MAX_STAGES",
    "MAX_TAGS",
    "PROFILES",
    "ROW_BYTES",
    "Deadlines",
    "Profile",
    "Reference",
    "deadlines",
    "profile",
    "reference",
    "references",
    "stretch",
]
