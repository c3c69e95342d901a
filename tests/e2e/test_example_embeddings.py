"""examples/embeddings.py, loaded as the runner loads it, with the real model."""

import base64
import math
import struct
from pathlib import Path

import httpx
import pytest

from tests.e2e.model import loaded_embeddings

ROOT = Path(__file__).parents[2]
HAPPY = "That is a happy person"
# The values that the model card of sentence-transformers/all-MiniLM-L6-v2 shows.
PUBLISHED = {
    "That is a happy dog": 0.6946,
    "That is a very happy person": 0.9429,
    "Today is a sunny day": 0.2569,
}


@pytest.fixture(scope="module")
def chute():
    with loaded_embeddings() as loaded:
        yield loaded


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
