"""Whatever a developer passes to an image, no value becomes an instruction of its own."""

from hypothesis import given
from hypothesis import strategies as st

from chutes_core.base.errors import Invalid
from chutes_core.sdk.image import Image

KEYWORDS = {"FROM", "RUN", "ENV", "USER", "WORKDIR", "ADD", "ENTRYPOINT", "MAINTAINER"}
TEXT = st.text(max_size=40)
CALLS = {
    "from_base": lambda image, text: image.from_base(text),
    "with_maintainer": lambda image, text: image.with_maintainer(text),
    "set_user": lambda image, text: image.set_user(text),
    "set_workdir": lambda image, text: image.set_workdir(text),
    "apt_install": lambda image, text: image.apt_install(text),
    "with_env": lambda image, text: image.with_env("A", text),
    "run_command": lambda image, text: image.run_command(text),
    "add": lambda image, text: image.add(text, "/x"),
    "dest": lambda image, text: image.add("x", text),
    "with_entrypoint": lambda image, text: image.with_entrypoint(text),
}


@given(st.lists(st.tuples(st.sampled_from(sorted(CALLS)), TEXT), max_size=8))
def test_every_line_begins_with_an_instruction_or_continues_one(calls):
    """Each line of a Dockerfile is one accepted call, or the rest of one that ends in \\."""
    image = Image("bob", "app", "1")
    accepted, entrypoints = 0, 0  # a second entrypoint takes the place of the first
    for name, text in calls:
        before = str(image)
        try:
            CALLS[name](image, text)
            accepted += name not in ("from_base", "with_entrypoint")
            entrypoints += name == "with_entrypoint"
        except Invalid:
            assert str(image) == before
    lines = str(image).split("\n")
    starts = [line for i, line in enumerate(lines) if i == 0 or not lines[i - 1].endswith("\\")]
    assert len(starts) == len(image.instructions) == accepted + min(entrypoints, 1) + 1
    assert all(line.split(" ")[0] in KEYWORDS for line in starts)
    assert sum(line.startswith("FROM ") for line in starts) == 1
