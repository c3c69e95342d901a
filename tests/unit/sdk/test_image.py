"""Image: the text of the Dockerfile and what is refused."""

import pytest

from chutes_core.base import ids
from chutes_core.base.errors import Invalid
from chutes_core.sdk.image import Added, Image


def image() -> Image:
    return Image("bob", "app", "1.0")


def test_dockerfile_of_every_instruction():
    """The text is that of the public SDK, in the order of the calls."""
    built = (
        image()
        .from_base("ubuntu:24.04")
        .with_maintainer("bob@example.com")
        .set_user("root")
        .apt_install("git curl")
        .apt_install(["jq"])
        .apt_remove("curl")
        .with_env("MODE", "fast")
        .set_workdir("/app")
        .add("src", "/app/src")
        .run_command("pip install numpy==2.4.6")
        .with_entrypoint("python", "-m", "app")
    )
    assert str(built).splitlines() == [
        "FROM ubuntu:24.04",
        "MAINTAINER bob@example.com",
        "USER root",
        "RUN apt-get -y install git curl",
        "RUN apt-get -y install jq",
        "RUN apt-get -y remove curl",
        "ENV MODE=fast",
        "WORKDIR /app",
        "ADD src /app/src",
        "RUN pip install numpy==2.4.6",
        'ENTRYPOINT ["python", "-m", "app"]',
    ]


def test_default_base():
    """Without from_base the image starts from the public default base."""
    assert str(image()) == "FROM parachutes/python:3.12"


def test_from_base_replaces_the_first_line_wherever_it_is_called():
    """from_base after other calls still gives one FROM, on the first line."""
    text = str(image().run_command("true").from_base("a:1").from_base("b:2"))
    assert text == "FROM b:2\nRUN true"


def test_chaining_returns_the_same_image():
    """Every method returns the image itself, so both styles of writing work."""
    one = image()
    assert one.run_command("true") is one
    assert one.add("x", "/x") is one


def test_with_python_builds_that_version():
    """with_python names the exact release and makes it the default interpreter."""
    text = str(image().with_python("3.11.9"))
    assert "/3.11.9/Python-3.11.9.tgz" in text
    assert "ln -s /opt/python/bin/python3.11 /opt/python/bin/python" in text


@pytest.mark.parametrize("version", ["3.11", "2.7.18", "3.11.9; rm -rf /", "latest"])
def test_with_python_refuses_anything_but_a_full_version(version):
    """A version that could smuggle in a command, or is no release, is refused."""
    with pytest.raises(Invalid, match="bad_python_version"):
        image().with_python(version)


def test_add_with_owner_and_mode():
    """Owner and mode become ADD's options; a name with a space takes the JSON form."""
    built = image().add("my file", "/x", chown="app:app", chmod="0755")
    assert built.instructions[-1].text == '--chown=app:app --chmod=0755 ["my file", "/x"]'
    assert built.added == (Added("my file", "/x"),)


@pytest.mark.parametrize("source", ["/etc/passwd", "../x", "a/../../x", ""])
def test_add_refuses_sources_outside_the_context(source):
    """A source can only lie inside the folder that is sent."""
    with pytest.raises(Invalid, match="source_outside_context"):
        image().add(source, "/x")


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "ä", "a\n", "x" * 129])
def test_names_follow_the_public_pattern(name):
    """A name or tag that the public pattern does not allow is refused at once."""
    with pytest.raises(Invalid, match="bad_image_name"):
        Image("bob", name, "1")
    with pytest.raises(Invalid, match="bad_image_tag"):
        Image("bob", "app", name)


def test_id_is_the_public_one():
    """The image's id is the uuid5 of its full name in lower case."""
    assert image().image_id == ids.image_id("bob", "app", "1.0")
    assert image().full_name == "bob/app:1.0"


def test_environment_values_stand_as_given():
    """As in the public SDK a value is not quoted, so that it may name other variables."""
    built = image().with_env("PATH", "/opt/bin:$PATH")
    assert built.instructions[-1].text == "PATH=/opt/bin:$PATH"


def test_an_entry_point_replaces_the_earlier_one():
    """One entry point counts, given as words or as a list of them."""
    text = str(image().with_entrypoint("a").with_entrypoint(["b", "c"]))
    assert text.count("ENTRYPOINT") == 1
    assert text.endswith('ENTRYPOINT ["b", "c"]')


def test_a_url_is_added_without_the_context():
    """What a URL names is fetched by the builder, and is no part of the upload."""
    built = image().add("https://example.com/a.git", "/a", keep_git_dir=True)
    assert built.instructions[-1].text == "--keep-git-dir=true https://example.com/a.git /a"
    assert built.added == ()


def test_empty_environment_value_is_allowed():
    """An empty value sets the variable to the empty text."""
    assert image().with_env("A", "").instructions[-1].text == "A="


@pytest.mark.parametrize(
    "break_out",
    [
        lambda i: i.with_env("A", "x\nRUN evil"),
        lambda i: i.with_env("A B", "x"),
        lambda i: i.set_user("root\nRUN evil"),
        lambda i: i.from_base("a:1\nRUN evil"),
        lambda i: i.apt_install("git; evil"),
        lambda i: i.add("x", "/x\\"),
        lambda i: i.set_user("root\\"),
        lambda i: i.run_command("  "),
        lambda i: i.with_entrypoint(),
        lambda i: i.apt_install([]),
        lambda i: i.add("x", "/x", chmod="a+x"),
        lambda i: i.add("x", "/x", chown="a b"),
    ],
)
def test_no_value_breaks_out_of_its_instruction(break_out):
    """A value that would start another instruction, or none, is refused and changes nothing."""
    one = image()
    with pytest.raises(Invalid):
        break_out(one)
    assert str(one) == "FROM parachutes/python:3.12"


def test_commands_may_span_lines_with_backslashes():
    """A command of several lines is kept as it was written."""
    text = str(image().run_command("apt-get update && \\\n    apt-get install -y git"))
    assert text.endswith("RUN apt-get update && \\\n    apt-get install -y git")
