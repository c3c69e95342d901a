"""What the control plane refuses before it looks at a request's meaning."""

from chutes_core.base.failures import MAX_FAILURES


async def test_an_address_that_guesses_is_429(api):
    """After MAX_FAILURES wrong proofs nothing more is checked from there for a while."""
    wrong = {"Authorization": "Bearer nonsense"}
    for _ in range(MAX_FAILURES):
        answer = await api.http.get("/chutes/", headers=wrong)
        assert answer.status_code == 401
    answer = await api.http.get("/chutes/", headers=wrong)
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_failures")
    assert answer.json()["hint"]
    assert int(answer.headers["Retry-After"]) >= 1
    api.clock.advance(1)
    assert (await api.http.get("/chutes/", headers=wrong)).status_code == 401


async def test_what_does_not_exist_is_said_in_our_form(api):
    """404 and 405 have code and hint too."""
    answer = await api.http.get("/nothing/here")
    assert (answer.status_code, answer.json()["code"]) == (404, "no_such_path")
    assert answer.json()["hint"]
    answer = await api.http.put("/users/me")
    assert (answer.status_code, answer.json()["code"]) == (405, "wrong_method")
    assert answer.json()["hint"]
    assert answer.headers["Allow"] == "GET"
