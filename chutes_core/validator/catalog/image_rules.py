"""What an upload must look like to become an image. Pure; the first broken rule is named."""

import re
from dataclasses import dataclass, field

from chutes_core.base import ids
from chutes_core.base.errors import Forbidden, Invalid
from chutes_core.validator.catalog.dockerfile import check_dockerfile
from chutes_core.validator.domain.accounts import Account

MAX_NAME_LENGTH = 128
MAX_README_BYTES = 64 * 1024


@dataclass(frozen=True)
class ImageDraft:
    """What a developer uploads."""

    username: str
    name: str
    tag: str
    readme: str
    public: bool
    dockerfile: str
    context: bytes = field(repr=False)


def check_image(owner: Account, draft: ImageDraft) -> None:
    """Check everything about an upload that needs no store; its context is read by the bundle.

    Raises:
        Forbidden: ``wrong_username``.
        Invalid: ``bad_image_name``, ``readme_too_large``, or what `check_dockerfile` raises.
    """
    if draft.username.lower() != owner.username:
        raise Forbidden("wrong_username", f"the image must be named {owner.username}/…")
    for what, text in (("name", draft.name), ("tag", draft.tag)):
        if len(text) > MAX_NAME_LENGTH or not re.fullmatch(ids.NAME_PATTERN, text):
            raise Invalid(
                "bad_image_name", f"the image's {what} does not fit", hint=ids.NAME_PATTERN
            )
    if len(draft.readme.encode()) > MAX_README_BYTES:
        raise Invalid("readme_too_large", f"the readme is over {MAX_README_BYTES} bytes")
    check_dockerfile(draft.dockerfile)
