"""The running control plane keeps what its OpenAPI document says, whatever it is sent."""

import json
import sys
from pathlib import Path

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode, checks

sys.path.insert(0, str(Path(__file__).parent))  # for whole_validator under --import-mode=importlib

from whole_validator import ALICE, served

pytestmark = pytest.mark.timeout(600)  # some seconds of work, on a machine that may be busy
JSON = {"Content-Type": "application/json"}
CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
# Proofs of the caller are put on by whole_validator, not made up.
PROVEN = schemathesis.Config.from_dict({"generation": {"with-security-parameters": False}})
EXAMPLES = {GenerationMode.POSITIVE: 6, GenerationMode.NEGATIVE: 3}
STREAMS = ("/chutes/warmup/{reference}",)  # of a real chute it ends when that is hot
BOUNDED = settings(
    derandomize=True,  # the same cases in every run
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def validator(tmp_path_factory):
    """The whole control plane, with one of everything in its store."""
    with served(tmp_path_factory.mktemp("validator")) as made:
        yield made


@pytest.fixture(scope="module")
def operations(validator):
    """The operations of its OpenAPI document, as anybody reads it."""
    document = httpx.get(f"{validator.url}/openapi.json", trust_env=False).json()
    found = schemathesis.openapi.from_dict(document, config=PROVEN).get_all_operations()
    # what deletes goes last, so that the others find what there is
    return sorted((one.ok() for one in found), key=lambda one: one.method == "delete")


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_5xx_and_no_undocumented_status(operations, validator, mode):
    """Fitting and broken requests are answered as documented, with made-up and with real ids."""
    assert len(operations) > 40
    problems = {}
    for operation in operations:
        try:
            _try_out(operation, validator, mode)
        except Unsatisfiable:
            assert mode is GenerationMode.NEGATIVE  # it takes nothing that could be broken
        except (AssertionError, schemathesis.core.failures.FailureGroup) as error:
            problems[operation.label] = str(error)
    assert not problems, "\n\n".join(f"{label}: {said}" for label, said in problems.items())


def _try_out(operation, validator, mode):
    @settings(BOUNDED, max_examples=EXAMPLES[mode])
    @given(case=operation.as_strategy(generation_mode=mode))
    def try_out(case):
        _answered(case, validator)
        if case.path_parameters and operation.path not in STREAMS:
            case.path_parameters = validator.known[operation.path.split("/")[1]]
            _answered(case, validator)

    try_out()


def _answered(case, validator):
    response = case.call(base_url=validator.url, timeout=60)
    case.validate_response(response, checks=CHECKS)
    if response.status_code >= 400 and response.status_code != 416:
        said = response.json()
        assert said["code"], said
        assert said["hint"], said


WHOLE = {
    "/api_keys/": {"name": "k", "scopes": [{"object_type": "chutes", "action": "invoke"}]},
    "/secrets/": {"purpose": "app", "key": "TOKEN", "value": "v"},
    "/chutes/share": {"chute_id_or_name": "app", "user_id_or_name": "bob"},
    "/chutes/": {
        "name": "again",
        "image": "app:1",
        "filename": "app.py",
        "ref_str": "app:chute",
        "code": "chute = 1",
        "node_selector": {"gpu_count": 1, "include": ["h100"]},
        "cords": [{"function": "say", "path": "/say", "input_schema": {"type": "object"}}],
        "jobs": [],
    },
    "/users/balance_transfer": {"user_id": "bob", "amount": "0"},
    "/users/register": {"username": "carol", "coldkey": ALICE.ss58_address},
    "/return_developer_deposit": {"address": ALICE.ss58_address, "deposits": ["a"]},
}
ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@pytest.mark.parametrize("path", WHOLE)
def test_one_odd_value_in_a_whole_body_is_answered(validator, path):
    """Whatever stands in a field of an otherwise good body, the answer is a success or 4xx."""

    @settings(BOUNDED, max_examples=25)
    @given(field=st.sampled_from(sorted(WHOLE[path])), value=ODD)
    def try_out(field, value):
        body = WHOLE[path] | {field: value}
        with httpx.Client(base_url=validator.url, trust_env=False, timeout=60) as http:
            answer = http.post(path, content=json.dumps(body), headers=JSON)
        assert answer.status_code < 500, (body, answer.text)
        if answer.status_code >= 400:
            assert answer.json()["code"], answer.text
            assert answer.json()["hint"], answer.text

    try_out()
