"""Whatever a developer passes to an image, no value becomes an instruction of its own."""

from hypothesis import given
from hypothesis import strategies as st

from chutes_core.base.errors import Invalid
from chutes_core.sdk.image import Image
from chutes_core.validator.catalog.dockerfile import instructions

KEYWORDS = {
    "with_maintainer": "MAINTAINER",
    "set_user": "USER",
    "set_workdir": "WORKDIR",
    "apt_install": "RUN",
    "with_env": "ENV",
    "run_command": "RUN",
    "add": "ADD",
    "dest": "ADD",
}
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
def test_every_instruction_is_one_accepted_call(calls):
    """What is built has one instruction for each call that was accepted, and no other."""
    image = Image("bob", "app", "1")
    expected, entrypoints = ["FROM"], 0  # a second entrypoint takes the place of the first
    for name, text in calls:
        before = str(image)
        try:
            CALLS[name](image, text)
        except Invalid:
            assert str(image) == before
            continue
        if name == "with_entrypoint":
            entrypoints = 1
        elif name != "from_base":
            expected.append(KEYWORDS[name])
    text = built(image)
    if text is None:
        assert not all(plain(one.text) for one in image.instructions if one.keyword == "RUN")
        return
    found = [one.keyword for one in instructions(text)]
    assert sorted(found) == sorted(expected + ["ENTRYPOINT"] * entrypoints)
    assert found[0] == "FROM"


def built(image):
    """Return the Dockerfile, or None where a command cannot be built."""
    try:
        return image.dockerfile()
    except Invalid:
        return None


def plain(command):
    """Return whether a command is one line that does not go on."""
    lines = command.strip("\r\n").rstrip().splitlines()
    return len(lines) == 1 and not lines[0].endswith("\\")
