import pytest

from chutes_core.validator.gateway.target import Target, target_of

CHUTE = "6a1c5b9e-6b7f-4f55-9b54-0c3a4a5e7a10"


@pytest.mark.parametrize(
    ("method", "path", "host", "expected"),
    [
        ("POST", "/c/bob-app/run", "api.x", Target("slug", "bob-app", "/run")),
        ("GET", "/c/bob-app", "api.x", Target("slug", "bob-app", "/")),
        ("GET", "/run/it", "bob-app.chutes.test", Target("slug", "bob-app", "/run/it")),
        ("GET", "/v1/models", "BOB-app.Chutes.test:443", Target("slug", "bob-app", "/v1/models")),
        ("GET", "/ping", "chutes.test", None),
        ("GET", "/ping", "api.chutes.test", None),
        ("GET", "/ping", "a.b.chutes.test", None),
        ("GET", "/ping", "chutes.test.evil", None),
        ("GET", "/ping", "[::1]:8000", None),
        ("POST", "/v1/chat/completions", "", Target("model", "", "/v1/chat/completions")),
        ("GET", "/v1/models", "", Target("models", "", "/v1/models")),
        ("POST", f"/chutes/{CHUTE}/run", "", Target("cord", CHUTE, "/run")),
        ("GET", f"/chutes/{CHUTE}/run", "", None),
        ("POST", f"/chutes/{CHUTE}", "", None),
        ("POST", f"/chutes/{CHUTE}/", "", None),
        ("POST", "/chutes/share", "", None),
        ("POST", "/chutes/name/run", "", None),
        ("GET", "/", "", None),
        ("GET", "/v1", "", None),
        ("GET", "/c", "", None),
    ],
)
def test_exactly_four_forms_are_invocations(method, path, host, expected):
    """A request is the control plane's unless it has one of the four forms."""
    assert target_of(method, path, host, "chutes.test") == expected


def test_without_a_domain_no_host_is_a_chute():
    """Where no wildcard name is set, the Host header chooses nothing."""
    assert target_of("GET", "/ping", "bob-app.chutes.test", None) is None
