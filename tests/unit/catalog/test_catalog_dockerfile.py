"""Which Dockerfiles are accepted."""

import doctest

import pytest

from chutes_core.base.errors import Invalid
from chutes_core.validator.catalog import dockerfile
from chutes_core.validator.catalog.dockerfile import bases, check_dockerfile


@pytest.mark.parametrize(
    "lines",
    [
        "ADD app.py /app/",
        'ADD --chown=1:1 ["a b", "/app/"]',
        "ADD src/ vendor.tar.gz /app/",
        "COPY --from=python:3.12 /usr /usr",
        "RUN curl http://example.com",
        "ENV A=http://x",
        "# ADD http://x /y",
        "# syntax=docker/dockerfile:1.7",
        "RUN ls --all",
        "RUN echo \\\n# a comment\n  ADD http://x",
    ],
)
def test_ordinary_lines_are_accepted(lines):
    """Copying from the context, and commands that use the guarded network, are a build's work."""
    check_dockerfile(f"FROM python:3.12\n{lines}\n")


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ("ADD http://169.254.169.254/latest /x", "remote_add"),
        ("add \\\n  http://10.0.0.1/ /x", "remote_add"),
        ('ADD ["http://x/y", "/x"]', "remote_add"),
        ("ARG U=http://x\nADD $U /x", "remote_add"),
        ("ADD h'tt'p:\\//x /x", "remote_add"),
        ("ADD git@example.com:a/b /x", "remote_add"),
        ("ADD [broken /x", "bad_dockerfile"),
        ("ONBUILD ADD a /b", "onbuild_refused"),
        ("FROM localhost:5000/a", "registry_refused"),
        ("FROM 10.0.0.7:5000/a AS b", "registry_refused"),
        ("FROM 0x7f.1:5000/a", "registry_refused"),
        ("FROM --platform=linux/amd64 cache.internal/a", "registry_refused"),
        ("COPY --from=192.168.0.1/a /x /x", "registry_refused"),
        ("FROM db:5432/a", "registry_refused"),
        ("FROM NAS/a", "registry_refused"),
        ("FROM localhost/a", "registry_refused"),
        ("FROM $BASE", "bad_dockerfile"),
        ("RUN --network=host curl http://10.0.0.1", "buildkit_only"),
        ("RUN --security=insecure mount /dev/sda1 /mnt", "buildkit_only"),
        ("RUN \\\n --mount=type=bind,source=/,target=/host cat /host/etc/shadow", "buildkit_only"),
        ("# syntax=evil/frontend:1\nRUN x", "frontend_refused"),
        ("#Syntax = docker.io/evil/dockerfile", "frontend_refused"),
    ],
)
def test_what_the_engine_would_do_outside_of_the_build_is_refused(lines, code):
    """Nothing makes the engine itself fetch from an address that a developer chose."""
    with pytest.raises(Invalid) as refused:
        check_dockerfile(f"FROM python:3.12\n{lines}\n")
    assert refused.value.code == code


def test_another_escape_character_is_refused():
    """It would make lines join in another way than this check joins them."""
    with pytest.raises(Invalid):
        check_dockerfile("# escape=`\nFROM a\nADD `\nhttp://x /y")


def test_bases_leave_out_earlier_stages():
    """Only images that come from elsewhere have to be looked at."""
    text = "ARG A\nFROM one:1 AS x\nFROM x AS y\nFROM --platform=linux/amd64 two\nFROM scratch"
    assert bases(text) == ("one:1", "two")


def test_the_example_in_the_module_holds():
    """The module's docstring shows what the function returns."""
    assert doctest.testmod(dockerfile).failed == 0
