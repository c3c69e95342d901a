"""build, deploy, inspect, and the build context."""

import io
import json
import zipfile
from pathlib import Path
from textwrap import dedent

import pytest

from chutes_core.base import ids
from chutes_core.cli import build as build_module
from chutes_core.cli import buildlog, context
from chutes_core.sdk.image import Image

IMAGE_ID = ids.image_id("bob", "app", "1")
LOGS = f"GET /images/{IMAGE_ID}/logs"
CODE = dedent(
    """
    from chutes.chute import Chute
    from chutes.image import Image

    image = Image("bob", "app", "1", readme="read me").run_command("true").add("data", "/data")
    chute = Chute(username="bob", name="app", image=image)
    named = Chute(username="bob", name="named", image="bob/app:1")

    @chute.cord(public_api_path="/echo")
    async def echo(self, text: str) -> str:
        return text
    """
)


def event(text: str, offset: str) -> bytes:
    body = {"log": {"log_type": "stdout", "log": text}, "offset": offset}
    return f"data: {json.dumps(body)}\n\n".encode()


@pytest.fixture(autouse=True)
def work(monkeypatch) -> Path:
    Path("my_app.py").write_text(CODE)
    Path("data/deep").mkdir(parents=True)
    Path("data/a.txt").write_text("a")
    Path("data/deep/run.sh").write_text("b")
    Path("data/deep/run.sh").chmod(0o755)
    monkeypatch.setattr(build_module, "_POLL_S", 0)
    monkeypatch.setattr(buildlog, "_PAUSE_S", 0)
    return Path.cwd()


def test_build_sends_the_public_form(run, api, registered):
    """The form has the public fields, the Dockerfile's text, and the added files as a zip."""
    api.on("POST /images/", {"image_id": IMAGE_ID}, status=202)
    done = run("build", "my_app:chute", "--public", "--json")
    assert (done.code, done.json["image_id"]) == (0, IMAGE_ID)
    (request,) = api.requests
    assert request.caller == registered.hotkey_ss58
    fields, files = _form(request)
    assert fields == {
        "username": "bob",
        "name": "app",
        "tag": "1",
        "readme": "read me",
        "dockerfile": "FROM parachutes/python:3.12\nRUN true\nADD data /data",
        "public": "True",
        "logo_id": "__none__",
        "wait": "False",
    }
    archive = zipfile.ZipFile(io.BytesIO(files["build_context"]))
    assert archive.namelist() == ["data/a.txt", "data/deep/run.sh"]
    assert archive.getinfo("data/deep/run.sh").external_attr >> 16 & 0o111


def test_wait_follows_the_log_to_the_end(run, api, registered):
    """Log lines are printed as they come, keep-alives are not, and the end is success."""
    api.on("POST /images/", {"image_id": IMAGE_ID}, status=202)
    api.on(LOGS, event("one", "1") + b".\n" + event("two", "2") + b"DONE\n")
    api.on(f"GET /images/{IMAGE_ID}", {"image_id": IMAGE_ID, "status": "built and pushed"})
    done = run("build", "my_app:chute", "--wait", "--json")
    assert done.code == 0
    assert done.json["status"] == "built and pushed"
    assert done.err.splitlines()[-2:] == ["one", "two"]


def test_a_failed_build_exits_1(run, api, registered):
    """The reason of the failure is shown after the log."""
    api.on("POST /images/", {"image_id": IMAGE_ID}, status=202)
    api.on(LOGS, event("no such package", "1") + b"DONE\n")
    api.on(f"GET /images/{IMAGE_ID}", {"image_id": IMAGE_ID, "status": "error: step 2 failed"})
    done = run("build", "my_app:chute", "--wait")
    assert done.code == 1
    assert "no such package" in done.err
    assert "step 2 failed" in done.err


def test_a_broken_log_is_taken_up_at_its_offset(run, api, registered):
    """After a cut connection the log goes on behind the last line, none twice."""
    api.on("POST /images/", {"image_id": IMAGE_ID}, status=202)
    api.on(LOGS, event("one", "7"), cut=True)
    api.on(LOGS, event("two", "8") + b"DONE\n")
    api.on(f"GET /images/{IMAGE_ID}", {"image_id": IMAGE_ID, "status": "built and pushed"})
    done = run("build", "my_app:chute", "--wait")
    assert done.code == 0
    assert done.err.splitlines()[-2:] == ["one", "two"]
    assert [r.query for r in api.requests if r.path.endswith("/logs")] == [{}, {"offset": ["7"]}]


def test_a_built_image_answers_with_plain_text(run, api, registered):
    """Where the build is over already, the whole log comes as text."""
    api.on("POST /images/", {"image_id": IMAGE_ID}, status=202)
    api.on(LOGS, b"line 1\nline 2\n", headers={"Content-Type": "text/plain"})
    api.on(f"GET /images/{IMAGE_ID}", {"image_id": IMAGE_ID, "status": "building"})
    api.on(f"GET /images/{IMAGE_ID}", {"image_id": IMAGE_ID, "status": "built and pushed"})
    done = run("build", "my_app:chute", "--wait")
    assert done.code == 0
    assert done.err.splitlines()[-2:] == ["line 1", "line 2"]


def test_a_build_that_ended_meanwhile_is_read_on_as_text(run, api, registered):
    """After a cut stream the whole log may come as text: only its new lines are printed."""
    api.on("POST /images/", {"image_id": IMAGE_ID}, status=202)
    api.on(LOGS, event("one\ntwo", "1"), cut=True)
    api.on(LOGS, b"one\ntwo\nthree\n", headers={"Content-Type": "text/plain"})
    api.on(f"GET /images/{IMAGE_ID}", {"image_id": IMAGE_ID, "status": "built and pushed"})
    done = run("build", "my_app:chute", "--wait")
    assert done.err.splitlines()[-3:] == ["one", "two", "three"]


def test_waiting_has_an_end(run, api, registered):
    """A build that takes longer than --timeout is a failure with the image's id."""
    api.on("POST /images/", {"image_id": IMAGE_ID}, status=202)
    api.on(f"GET /images/{IMAGE_ID}", {"image_id": IMAGE_ID, "status": "building"})
    done = run("build", "my_app:chute", "--wait", "--timeout", "0", "--json")
    assert (done.code, done.json["error"]["code"]) == (1, "build_too_slow")


@pytest.mark.parametrize(
    ("status", "code"),
    [(402, "insufficient_balance"), (403, "not_developer"), (409, "image_exists")],
)
def test_a_refused_image_exits_1(run, api, registered, status, code):
    """Each refusal of the server ends the command with its code."""
    api.on("POST /images/", {"detail": "no", "code": code}, status=status)
    done = run("build", "my_app:chute", "--json")
    assert (done.code, done.json["error"]["code"]) == (1, code)


def test_a_chute_on_a_named_image_has_nothing_to_build(run, registered):
    """There is nothing to send for an image that is only named."""
    assert "nothing_to_build" in run("build", "my_app:named").err


def test_debug_shows_what_is_sent(run, api, registered):
    """--debug prints the Dockerfile and the files, on stderr."""
    api.on("POST /images/", {"image_id": IMAGE_ID}, status=202)
    done = run("build", "my_app:chute", "--debug")
    assert "ADD data /data" in done.err
    assert "context: data/a.txt" in done.err


def test_a_broken_chute_file_names_its_line(run, registered):
    """The failing line of the chute file is part of the error."""
    Path("broken.py").write_text("x = 1\nraise ValueError('why')\n")
    done = run("build", "broken:chute")
    assert done.code == 2
    assert "broken.py, line 2: raise ValueError('why')" in done.err


def test_include_cwd_leaves_secrets_and_caches_out(work):
    """The whole folder is sent, but not what never belongs into an image."""
    for name in (".git/config", "__pycache__/x.pyc", ".env", "venv/x", "notes/n.txt", "skip/s"):
        path = work / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    (work / ".dockerignore").write_text("# comment\nnotes/\n")
    files = context.collect(Image("bob", "app", "1"), work, include_cwd=True)
    expected = {".dockerignore", "data/a.txt", "data/deep/run.sh", "my_app.py", "skip/s"}
    assert set(files) == expected


def test_a_link_out_of_the_folder_is_refused(work, tmp_path):
    """A link cannot carry a file of elsewhere into an image."""
    (tmp_path / "secret").write_text("x")
    (work / "data" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(context.Invalid, match="source_outside_context"):
        context.collect(Image("bob", "app", "1").add("data", "/d"), work, include_cwd=False)


def test_a_missing_source_is_named(work):
    """Adding what is not there fails before anything is sent."""
    with pytest.raises(context.NotFound, match="no_such_source"):
        context.collect(Image("b", "a", "1").add("nothing.txt", "/d"), work, include_cwd=False)


def test_a_pattern_names_what_it_matches_and_exclude_keeps_home(work):
    """As in the public SDK: `**` goes through folders, and excluded paths are not sent."""
    image = Image("b", "a", "1").add("data/**/*", "/d", exclude=["data/deep"])
    assert set(context.collect(image, work, include_cwd=False)) == {"data/a.txt"}
    image = Image("b", "a", "1").add("data/*.txt", "/d").add("data", "/e", exclude=["*.sh"])
    assert set(context.collect(image, work, include_cwd=False)) == {"data/a.txt"}


def test_equal_files_give_an_equal_zip(work):
    """The context's bytes depend on names, modes and contents only."""
    files = context.collect(Image("b", "a", "1").add("data", "/d"), work, include_cwd=False)
    first = context.pack(files)
    (work / "data" / "a.txt").touch()
    assert context.pack(dict(reversed(files.items()))) == first


def test_a_context_that_no_validator_takes_is_not_sent(work, monkeypatch):
    """The limit is checked while the zip grows."""
    monkeypatch.setattr(context, "MAX_ZIP_BYTES", 10)
    with pytest.raises(context.TooLarge, match="context_too_large"):
        context.pack({"a": work / "my_app.py"})


def test_deploy_sends_the_chute(run, api, registered):
    """The body carries code, image and cords; the answer's ids are shown."""
    answer = {"chute_id": "c1", "version": "v1", "name": "app", "slug": "bob-app"}
    api.on("POST /chutes/", answer)
    done = run("deploy", "my_app:chute", "--accept-fee", "--public")
    assert done.code == 0
    assert "bob-app" in done.out
    (request,) = api.requests
    assert request.query == {"accept_fee": ["true"]}
    assert request.json["code"] == CODE
    assert (request.json["image"], request.json["public"]) == ("bob/app:1", True)
    assert request.json["cords"][0]["public_api_path"] == "/echo"


def test_a_fee_that_was_not_accepted_is_shown(run, api, registered):
    """Without --accept-fee the server's question comes through, and nothing is accepted."""
    body = {"detail": "deploying costs 1 TAO", "code": "fee_not_accepted", "hint": "--accept-fee"}
    api.on("POST /chutes/", body, status=402)
    done = run("deploy", "my_app:chute")
    assert done.code == 1
    assert "deploying costs 1 TAO" in done.err
    assert api.requests[0].query == {"accept_fee": ["false"]}


def test_inspect_needs_no_server(run):
    """Everything about a chute file is known without a validator."""
    done = run("inspect", "my_app:chute", "--json")
    assert done.code == 0
    assert done.json["image"]["image_id"] == IMAGE_ID
    assert done.json["chute_id"] == ids.chute_id("bob", "app")
    assert done.json["version"] == ids.chute_version(IMAGE_ID, CODE)
    assert done.json["cords"][0]["input_schema"]["required"] == ["text"]
    text = run("inspect", "my_app:chute").out
    assert "POST /echo" in text
    assert "RUN true" in text


def _form(request) -> tuple[dict[str, str], dict[str, bytes]]:
    """Return the fields and files of a multipart body."""
    boundary = request.headers["content-type"].split("boundary=")[1].encode()
    fields, files = {}, {}
    for part in request.body.split(b"--" + boundary)[1:-1]:
        head, _, content = part.strip(b"\r\n").partition(b"\r\n\r\n")
        if not content and head.count(b"\r\n") == 0:
            content = b""
        name = head.split(b'name="')[1].split(b'"')[0].decode()
        if b"filename=" in head:
            files[name] = part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
        else:
            fields[name] = content.decode()
    return fields, files
