from dataclasses import replace

import pytest

from chutes_core.base.errors import ChutesError
from chutes_core.validator.catalog.rules import MAX_CORDS, ChuteDraft, check_cords, check_draft
from chutes_core.validator.domain.chutes import Cord, Selector

CORD = Cord("f", "/f", "POST", "/v1/f", "POST", False)
DRAFT = ChuteDraft("name", "i:1", "f.py", "f:chute", "x = 1", (CORD,), Selector())


@pytest.mark.parametrize("path", ["/a", "/a/b-c_d", "/v1/chat/completions", "/0"])
def test_paths_of_the_public_form_pass(path):
    """Lower-case segments of letters, digits, underscore and inner dashes."""
    check_cords([replace(CORD, path=path, public_api_path=path)])


@pytest.mark.parametrize("path", ["", "a", "/", "/A", "/a/", "//a", "/-a", "/a b", "/a?", "/a\n"])
def test_other_paths_are_refused(path):
    """What the pattern does not cover is refused, for inner and public paths."""
    for broken in (replace(CORD, path=path), replace(CORD, public_api_path=path)):
        with pytest.raises(ChutesError, match="bad_cord"):
            check_cords([broken])


def test_hostile_path_is_refused_at_once():
    """A long path that almost fits costs no exponential time."""
    with pytest.raises(ChutesError, match="bad_cord"):
        check_cords([replace(CORD, path="/" + "a/" * 90 + "aaaaaaaaaa!")])


def test_paths_are_unique_and_public_routes_too():
    """Two cords share neither a path nor a public method and path."""
    with pytest.raises(ChutesError, match="cord_twice"):
        check_cords([CORD, replace(CORD, public_api_path=None)])
    with pytest.raises(ChutesError, match="cord_twice"):
        check_cords([CORD, replace(CORD, path="/g")])
    check_cords([CORD, replace(CORD, path="/g", public_api_method="GET")])


def test_a_stream_and_a_plain_cord_may_share_a_public_route():
    """The body's `stream` chooses between them, as the SDK serves them; a second stream is one
    too many."""
    stream = replace(CORD, path="/s", stream=True)
    check_cords([CORD, stream])
    with pytest.raises(ChutesError, match="cord_twice"):
        check_cords([CORD, stream, replace(stream, path="/t")])


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"name": "a b"}, "bad_chute_name"),
        ({"name": ""}, "bad_chute_name"),
        ({"name": "a" * 129}, "bad_chute_name"),
        ({"name": "123e4567-e89b-12d3-a456-426614174000"}, "bad_chute_name"),
        ({"filename": "f"}, "bad_filename"),
        ({"filename": "a/f.py"}, "bad_filename"),
        ({"ref_str": "f:chute()"}, "bad_ref_str"),
        ({"ref_str": "os.path:x:y"}, "bad_ref_str"),
        ({"code": "  \n"}, "no_code"),
        ({"standard_template": "vLLM"}, "bad_template"),
        ({"scaling_threshold_percent": 101}, "out_of_range"),
        ({"shutdown_after_s": 0}, "out_of_range"),
        ({"cords": (CORD,) * (MAX_CORDS + 1)}, "too_many_cords"),
        ({"cords": (replace(CORD, input_schema={"x": "y" * 300_000}),)}, "schemas_too_large"),
        ({"cords": (replace(CORD, method="TRACE"),)}, "bad_cord"),
        ({"cords": (replace(CORD, function="f()"),)}, "bad_cord"),
        ({"cords": (replace(CORD, output_content_type="a\r\nb: c"),)}, "bad_cord"),
        ({"selector": Selector(min_vram_gb_per_gpu=141)}, "bad_selector"),
        ({"selector": Selector(max_hourly_price_usd_micros=0)}, "bad_selector"),
        ({"selector": Selector(exclude=("nope",))}, "unknown_gpu"),
    ],
)
def test_each_broken_rule_has_its_code(changes, code):
    """A draft that breaks one rule is refused with that rule's code."""
    check_draft(DRAFT)
    with pytest.raises(ChutesError) as caught:
        check_draft(replace(DRAFT, **changes))
    assert caught.value.code == code


@pytest.mark.parametrize("name", ["a", "deepseek-ai/DeepSeek-V3", "x_1.2"])
def test_names_of_models_are_names_of_chutes(name):
    """Letters of both cases, digits, dashes, dots and slashes."""
    check_draft(replace(DRAFT, name=name))
