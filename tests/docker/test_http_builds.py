"""Builds over HTTP on a real engine: what is refused, what a failed build says, a log taken up."""

import io
import json
import zipfile

import httpx
import pytest

from chutes_core.engine.connect import connect
from scripts.localnet import wait_until
from scripts.runtimes import BASE_IMAGE
from tests.e2e.people import rich_user

BUILD_TIMEOUT_S = 300
OLD_PYTHON = """#!/bin/sh
echo '{"python": "/usr/local/bin/python", "version": [3, 9, 2], "pip": true}'
"""
SLOW = "for i in 1 2 3 4 5 6; do echo count $i; sleep 0.4; done"
pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def maker(docker_net):
    """A user who builds images."""
    return rich_user(docker_net, str(docker_net.validator.ready["url"]), "maker")


def zipped(files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def upload(maker, name, dockerfile, files=()):
    form = {"username": "maker", "name": name, "tag": "1", "dockerfile": dockerfile}
    context = {"build_context": ("context.zip", zipped(dict(files)), "application/zip")}
    url = maker.url + "/images/"
    return httpx.post(url, data=form, files=context, headers=maker.headers, timeout=150)


def image_of(maker, image_id):
    """Return the image once its build has ended."""
    found = {}

    def ended():
        found.update(maker.get(f"/images/{image_id}"))
        return found["build_completed_at"] is not None

    wait_until(ended, BUILD_TIMEOUT_S, "the build to end", poll_s=0.3)
    return found


def log_of(maker, image_id):
    url = f"{maker.url}/images/{image_id}/logs"
    return httpx.get(url, headers=maker.headers, timeout=150).text


@pytest.mark.parametrize(
    ("name", "files", "expected"),
    [
        ("up", {"../../etc/cron.d/x": "x"}, (422, "unsafe_zip")),
        ("absolute", {"/etc/passwd": "x"}, (422, "unsafe_zip")),
        ("bomb", {"zeros": bytes(300 << 20)}, (422, "unsafe_zip")),
        ("vast", {str(n): bytes(90 << 20) for n in range(6)}, (413, "context_too_large")),
    ],
)
def test_a_bad_context_is_refused_at_once(maker, name, files, expected):
    """Paths that lead out, and bombs: no image comes into being."""
    answer = upload(maker, name, f"FROM {BASE_IMAGE}", files)
    said = answer.json()
    assert (answer.status_code, said["code"]) == expected
    assert said["detail"]
    assert said["hint"]
    assert name not in {one["name"] for one in maker.get("/images/")["items"]}


@pytest.mark.parametrize(
    ("name", "lines", "code", "words"),
    [
        (
            "failing",
            "RUN echo so far so good; echo broken >&2; exit 7",
            "build_failed",
            ("returned a non-zero code: 7", "so far so good", "broken"),
        ),
        (
            "no-python",
            "RUN rm -f /usr/bin/python* /usr/local/bin/python*",
            "no_python",
            ("no python on its PATH", "rm -f /usr/bin/python"),
        ),
        (
            "old-python",
            "COPY old /old\nRUN install -m 755 /old /usr/local/bin/python && echo installed it",
            "python_too_old",
            ("Python 3.9.2; 3.10 or later is needed", "installed it"),
        ),
    ],
)
def test_a_failed_build_says_why_and_what_to_do(maker, name, lines, code, words):
    """Status with the last lines of the log, code, hint; the log ends with it; nothing is left."""
    before = containers()
    files = {"old": OLD_PYTHON}
    answer = upload(maker, name, f"FROM {BASE_IMAGE}\n{lines}", files)
    assert answer.status_code == 202, answer.text
    image = image_of(maker, answer.json()["image_id"])
    assert image["status"].startswith("error: ")
    assert image["error"]["code"] == code
    assert image["error"]["hint"]
    log = log_of(maker, image["image_id"])
    for word in words:
        assert word in image["status"]
        assert word in log
    assert containers() <= before


def test_a_bad_dockerfile_never_reaches_the_engine(maker):
    """What the engine itself would fetch is refused with status, code and hint."""
    answer = upload(maker, "fetching", f"FROM {BASE_IMAGE}\nADD http://example.com/x /x")
    assert answer.status_code == 422
    assert answer.json()["code"]
    assert answer.json()["hint"]


def test_a_log_is_taken_up_by_offset_while_the_build_runs(maker):
    """Three connections, cut by the reader; every line comes once and in order."""
    answer = upload(maker, "slow", f"FROM {BASE_IMAGE}\nRUN {SLOW}; exit 3")
    image_id = answer.json()["image_id"]
    texts, offset, streams = [], None, 0
    while not texts or "count 6" not in texts:
        streams += 1
        texts_now, offset = read_some(maker, image_id, offset, most=5)
        texts += texts_now
    assert streams >= 2
    image = image_of(maker, image_id)
    assert image["error"]["code"] == "build_failed"
    counted = [text for text in texts if text.startswith("count ")]
    assert counted == [f"count {n}" for n in range(1, 7)]
    whole = log_of(maker, image_id)
    assert whole.startswith("\n".join(texts))


def read_some(maker, image_id, offset, most):
    """Read some lines of a running build's log behind an offset, then hang up."""
    params = {} if offset is None else {"offset": offset}
    texts = []
    url = f"{maker.url}/images/{image_id}/logs"
    with httpx.stream("GET", url, params=params, headers=maker.headers, timeout=150) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("data: "):
                event = json.loads(line.removeprefix("data: "))
                texts.append(event["log"]["log"])
                offset = event["offset"]
            if len(texts) == most or line == "DONE":
                break
    return texts, offset


def containers():
    client = connect(None)
    try:
        return {one["Id"] for one in client.api.containers(all=True)}
    finally:
        client.close()
