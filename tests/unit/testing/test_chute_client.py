"""ChuteClient: a chute in the test's own process."""

import asyncio
import os
from pathlib import Path
from textwrap import dedent

import pytest
from pydantic import BaseModel

from chutes_core.base.errors import ChutesError, Invalid, NotFound
from chutes_core.sdk import compat
from chutes_core.sdk.chute import Chute
from chutes_core.testing import ChuteClient
from chutes_core.testing.client import CONTEXT


class Person(BaseModel):
    name: str
    age: int = 1


@pytest.fixture
def seen():
    return []


@pytest.fixture
def chute(seen):
    chute = Chute(username="bob", name="app", image="bob/app:1")

    @chute.on_startup()
    async def start(self):
        self.word = "hi"
        seen.append("start")

    @chute.on_shutdown()
    def stop(self):
        seen.append("stop")

    @chute.cord(public_api_path="/older")
    async def older(self, person: Person) -> Person:
        return Person(name=person.name, age=person.age + 1)

    @chute.cord()
    async def twice(self) -> str:
        return await greet() * 2

    @chute.cord(output_content_type="text/plain")
    async def greet(self) -> str:
        return self.word

    @chute.cord(public_api_path="/picture", output_content_type="image/png")
    def picture(self) -> bytes:
        return b"\x89PNG"

    @chute.cord(stream=True)
    async def count(self, n: int):
        try:
            for index in range(n):
                yield f"{index};"
                await asyncio.sleep(0)
            if n > 5:
                raise ValueError("too many")
        finally:
            seen.append("closed")

    @chute.cord()
    async def broken(self) -> str:
        raise ValueError("secret")

    @chute.job()
    def write(self, output_dir: str, text: str):
        Path(output_dir, "out.txt").write_text(text + self.word)
        return len(text)

    return chute


def test_hooks_run_around_the_block(chute, seen):
    """Start-up before the first call, shutdown at the end; the environment is as before."""
    before = os.environ.get(CONTEXT)
    with ChuteClient(chute):
        assert seen == ["start"]
        assert os.environ[CONTEXT] == "REMOTE"
    assert seen == ["start", "stop"]
    assert os.environ.get(CONTEXT) == before


def test_a_cord_is_called_typed_and_over_http(chute):
    """Models come back as models; HTTP gives status, content type and bytes."""
    with ChuteClient(chute) as client:
        assert client.call("older", Person(name="a", age=4)) == Person(name="a", age=5)
        assert client.call("/twice") == "hihi"
        answer = client.get("/picture")
        assert answer.status_code == 405
        answer = client.post("/picture")
        assert (answer.headers["content-type"], answer.content) == ("image/png", b"\x89PNG")
        assert client.post("/older", json={"name": 3}).status_code == 422


def test_errors_are_those_of_a_caller(chute):
    """Bad input, a function that raises, and a cord that is none."""
    with ChuteClient(chute) as client:
        with pytest.raises(ChutesError, match="invalid_input"):
            client.call("older", person={"age": 3})
        with pytest.raises(ChutesError, match="cord_failed") as caught:
            client.call("broken")
        assert "secret" not in str(caught.value)
        with pytest.raises(NotFound, match="no_such_cord"):
            client.call("nothing")


def test_a_stream_comes_piece_by_piece_and_can_be_left(chute, seen):
    """Each item is there when it was yielded; a caller that leaves ends the function."""
    with ChuteClient(chute) as client:
        assert list(client.stream("count", n=3)) == ["0;", "1;", "2;"]
        pieces = client.stream("count", n=1_000_000)
        assert next(pieces) == "0;"
        pieces.close()
    assert seen.count("closed") == 2


def test_a_stream_that_fails_says_so(chute):
    """Before the first piece it is a refusal; in the middle the answer breaks off."""
    with ChuteClient(chute) as client:
        with pytest.raises(ChutesError, match="invalid_input"):
            list(client.stream("count", n="x"))
        with pytest.raises(ChutesError, match="broken_off"):
            list(client.stream("count", n=6))


def test_a_job_gives_its_files(chute):
    """What it left in its folder comes back as bytes."""
    with ChuteClient(chute) as client:
        output = client.run_job("write", text="abc")
        assert (output.result.status, output.result.result) == ("complete", 3)
        assert output.files == {"out.txt": b"abchi"}
        with pytest.raises(NotFound, match="no_such_job"):
            client.run_job("nothing")


def test_a_failing_hook_fails_the_test_and_leaves_nothing(chute):
    """What a start-up hook raises passes through, and the environment is as before."""

    @chute.on_startup(priority=99)
    async def fail(self):
        raise RuntimeError("no weights")

    before = os.environ.get(CONTEXT)
    with pytest.raises(RuntimeError, match="no weights"), ChuteClient(chute):
        pass
    assert os.environ.get(CONTEXT) == before


def test_a_file_is_named_by_reference(tmp_path):
    """`module:variable` loads the file with our SDK in the public one's place."""
    (tmp_path / "hello.py").write_text(
        dedent(
            """
            from chutes.chute import Chute
            chute = Chute(username="bob", name="app", image="bob/app:1")

            @chute.cord()
            async def hello(self, name: str) -> str:
                return "Hello, " + name
            """
        )
    )
    try:
        with ChuteClient("hello:chute", tmp_path) as client:
            assert client.call("hello", name="Ada") == "Hello, Ada"
    finally:
        compat.uninstall()


def test_what_does_not_run_says_so(chute):
    """Outside the block there is no chute, and a text is no reference to one."""
    client = ChuteClient(chute)
    with pytest.raises(Invalid, match="client_not_open"):
        client.call("greet")
    with pytest.raises(Invalid, match="not_a_chute"):
        ChuteClient(object())
