"""The built-in system chute: a launch of it attests a node's GPUs and runs no code at all.

It has an id and a version like any chute, so that launches, reports and lists need no second form.
Invariant: no chute of a user ever gets this id (users' ids are name-based of another namespace).
"""

ADMISSION_CHUTE_ID = "67726176-616c-5000-8000-00000000ad01"
ADMISSION_VERSION = "67726176-616c-5000-8000-000000000001"
ADMISSION_NAME = "graval/admission"
NO_IMAGE_SHA256 = "0" * 64
"""Stands in ImageRef.sha256: the miner starts the runner that it has itself."""


def is_admission(chute_id: str) -> bool:
    """Tell whether a launch attests GPUs instead of serving a chute."""
    return chute_id == ADMISSION_CHUTE_ID
