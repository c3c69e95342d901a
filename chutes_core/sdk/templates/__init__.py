"""Templates: whole chutes made by one call (vLLM, SGLang, diffusion, embedding).

None is written yet. Invariant: importing a name from one fails at once, by a typed error that
says so, and never hands out a builder that does nothing.
"""

from typing import NoReturn

from chutes_core.base.errors import NotFound


def missing(template: str, name: str) -> NoReturn:
    """Raise for a name that a chute file imports from a template.

    Raises:
        NotFound: ``template_not_there``, always.
    """
    raise NotFound(
        "template_not_there",
        f"template {template!r} ({name}) is not part of this SDK yet",
        hint="write the chute out: an Image, an on_startup hook that loads the model, and cords",
    )
