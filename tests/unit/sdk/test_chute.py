"""Chute: ids, rules of cords, hooks, jobs."""

import pytest

from chutes_core.base import ids
from chutes_core.base.errors import Conflict, Invalid
from chutes_core.sdk.chute import Chute, Port
from chutes_core.sdk.image import Image


def make(**changes) -> Chute:
    return Chute(**{"username": "bob", "name": "app", "image": "bob/app:1", **changes})


def test_defaults_are_the_public_ones():
    """A chute without options has the public client's defaults."""
    chute = make()
    assert (chute.concurrency, chute.max_instances) == (1, 1)
    assert (chute.shutdown_after_seconds, chute.scaling_threshold) == (300, 0.75)
    assert not chute.allow_external_egress
    assert chute.node_selector.gpu_count == 1


@pytest.mark.parametrize(
    "reference",
    [Image("bob", "app", "1"), "bob/app:1", ids.image_id("bob", "app", "1")],
)
def test_an_image_is_named_in_three_ways(reference):
    """An Image, user/name:tag and an id all lead to the same image id."""
    assert make(image=reference).image_id == ids.image_id("bob", "app", "1")


@pytest.mark.parametrize("reference", ["app:1", "bob/app", "", "bob/:1"])
def test_an_image_reference_that_names_nothing_is_refused(reference):
    """Half a name is no image."""
    with pytest.raises(Invalid, match="bad_image_reference"):
        _ = make(image=reference).image_id


@pytest.mark.parametrize(
    "wrong",
    [{"concurrency": -1}, {"scaling_threshold": 1.5}, {"shutdown_after_seconds": 0}, {"name": ""}],
)
def test_numbers_and_names_out_of_range_are_refused(wrong):
    """A value that no validator would accept fails where it is written."""
    with pytest.raises(Invalid):
        make(**wrong)


def test_a_cord_takes_its_path_from_the_function(chute):
    """The default path is a slash and the function's name."""

    @chute.cord()
    async def say_hi(self) -> str:
        return "hi"

    assert (say_hi.path, say_hi.method, say_hi.function) == ("/say_hi", "POST", "say_hi")
    assert chute.cords == (say_hi,)


@pytest.mark.parametrize("path", ["/a", "/v1/chat-x/y_2", "/_x", "/1"])
def test_paths_of_the_public_pattern_are_accepted(chute, path):
    """Lower-case segments of letters, digits, dash and underscore are paths."""
    cord = chute.cord(path=path, public_api_path=path)(_function)
    assert cord.path == cord.public_api_path == path


@pytest.mark.parametrize("path", ["/", "/A", "/a//b", "/-a", "/a b", "/a?b", "/../a", "/a\n"])
def test_other_paths_are_refused(chute, path):
    """Neither kind of path may leave the pattern."""
    with pytest.raises(Invalid, match="bad_cord_path"):
        chute.cord(path=path)(_function)
    with pytest.raises(Invalid, match="bad_cord_path"):
        chute.cord(public_api_path=path)(_function)


@pytest.mark.parametrize("path", ["a", "/a/", "//a", "a/"])
def test_slashes_around_a_path_are_put_right(chute, path):
    """As in the public SDK a path begins with one slash and ends without."""
    cord = chute.cord(path=path, public_api_path=path)(_function)
    assert cord.path == cord.public_api_path == "/a"


def test_a_long_bad_path_is_refused_quickly(chute):
    """The pattern has no input on which matching explodes."""
    with pytest.raises(Invalid, match="bad_cord_path"):
        chute.cord(path="/" + "a" * 150 + "!")(_function)


def test_paths_and_names_are_unique(chute):
    """Two cords share neither path nor name."""
    chute.cord(path="/x", public_api_path="/v1/x")(_function)

    async def other(self) -> None: ...

    with pytest.raises(Conflict, match="cord_path_taken"):
        chute.cord(path="/x")(other)
    with pytest.raises(Conflict, match="cord_path_taken"):
        chute.cord(path="/y", public_api_path="/v1/x")(other)
    with pytest.raises(Conflict, match="cord_name_taken"):
        chute.cord(path="/z")(_function)


def test_a_refused_cord_leaves_the_chute_as_it_was(chute):
    """A cord that was refused for its public path does not occupy its internal one."""
    chute.cord(public_api_path="/v1/x")(_function)

    async def other(self) -> None: ...

    with pytest.raises(Conflict):
        chute.cord(path="/y", public_api_path="/v1/x")(other)
    assert chute.cord(path="/y")(other).path == "/y"
    assert len(chute.cords) == 2


def test_stream_and_plain_cords_may_share_a_public_path(chute):
    """One public path may have a streaming and a plain cord."""

    async def streamed(self):
        yield "x"

    chute.cord(public_api_path="/v1/x")(_function)
    chute.cord(public_api_path="/v1/x", stream=True)(streamed)
    assert len(chute.cords) == 2


def test_stream_must_fit_the_function(chute):
    """A function that yields needs stream=True, and the other way round."""

    async def yields(self):
        yield 1

    with pytest.raises(Invalid, match="stream_mismatch"):
        chute.cord()(yields)
    with pytest.raises(Invalid, match="stream_mismatch"):
        chute.cord(stream=True)(_function)


@pytest.mark.parametrize(
    "options",
    [
        {"method": "FETCH"},
        {"public_api_method": "post"},
        {"passthrough": True, "passthrough_port": 70000},
        {"provision_timeout": 0},
    ],
)
def test_options_are_checked(chute, options):
    """A method, port or time that makes no sense is refused."""
    with pytest.raises(Invalid):
        chute.cord(**options)(_function)


def test_a_function_needs_self_and_named_parameters(chute):
    """What cannot be called with the chute and named values is refused."""

    async def without_self() -> None: ...
    async def with_rest(self, *rest) -> None: ...
    async def positional(self, x, /) -> None: ...

    for function in (without_self, with_rest, positional):
        with pytest.raises(Invalid):
            chute.cord()(function)


async def test_hooks_run_by_priority_then_declaration(chute):
    """Lower priorities run first, equal ones in order, sync and async alike, with the chute."""
    seen = []

    @chute.on_startup(priority=90)
    def last(self):
        seen.append(("last", self))

    @chute.on_startup()
    async def second(self):
        seen.append(("second", self))

    @chute.on_startup()
    def third(self):
        seen.append(("third", self))

    @chute.on_startup(priority=1)
    async def first(self):
        seen.append(("first", self))

    await chute.startup()
    assert seen == [("first", chute), ("second", chute), ("third", chute), ("last", chute)]


async def test_startup_runs_once_and_shutdown_only_after_it(chute):
    """Starting twice starts once; what never started is not shut down."""
    seen = []
    chute.on_startup()(lambda self: seen.append("up"))
    chute.on_shutdown()(lambda self: seen.append("down"))
    await chute.shutdown()
    await chute.startup()
    await chute.startup()
    await chute.shutdown()
    await chute.shutdown()
    assert seen == ["up", "down"]


async def test_every_shutdown_hook_runs_even_after_a_failure(chute):
    """One hook's failure neither hides nor stops the others, which keep their order."""
    seen = []

    @chute.on_shutdown(priority=1)
    def broken(self):
        seen.append(1)
        raise RuntimeError("broken hook")

    @chute.on_shutdown(priority=2)
    async def fine(self):
        seen.append(2)

    await chute.startup()
    with pytest.raises(RuntimeError, match="broken hook"):
        await chute.shutdown()
    assert seen == [1, 2]


async def test_a_failing_start_hook_passes_through(chute):
    """The runner sees what the developer's hook raised, itself."""

    @chute.on_startup()
    def broken(self):
        raise ValueError("no weights")

    with pytest.raises(ValueError, match="no weights"):
        await chute.startup()


def test_a_hook_without_parentheses_is_explained(chute):
    """`@chute.on_startup` in place of `@chute.on_startup()` says what to write."""
    with pytest.raises(Invalid, match=r"on_startup\(\)"):
        chute.on_startup(_function)


def test_jobs_travel_with_the_chute(chute):
    """A job is listed as POST /chutes/ takes it."""

    @chute.job(ports=[Port(name="web", port=8080)], timeout=60)
    async def train(self) -> None: ...

    assert chute.jobs == (train,)
    assert train.to_api() == {
        "name": "train",
        "ports": [{"name": "web", "port": 8080, "proto": "tcp"}],
        "timeout": 60,
        "upload": True,
    }


async def _function(self) -> None: ...
