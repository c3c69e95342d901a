"""An embedding model behind vLLM, from one call.

Invariant: the function's parameters, and the image, selector, cords and schemas that it makes, are
those of the public SDK 0.6.x.
"""
# ruff: noqa: D101 - a docstring would become the description in the schema that the API shows

import json
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from chutes_core.sdk.chute import Chute, ChutePack
from chutes_core.sdk.cord import Cord
from chutes_core.sdk.image import Image
from chutes_core.sdk.node_selector import NodeSelector
from chutes_core.sdk.templates import engine, language
from chutes_core.sdk.templates.vllm import REFUSED, VLLM

# How a family of models was trained to sum its tokens up; all others take the mean.
_POOLING = (("bge-", "CLS"), ("gte-", "LAST"), ("qwen", "LAST"))


class EmbeddingUsage(BaseModel):
    prompt_tokens: int
    total_tokens: int
    completion_tokens: int | None = 0
    prompt_tokens_details: dict[Any, Any] | None = None


class EmbeddingData(BaseModel):
    index: int
    object: str = "embedding"
    embedding: list[float]


class EmbeddingRequest(BaseModel):
    model: str
    input: str | list[str]
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: int | None = None
    user: str | None = None
    truncate_prompt_tokens: int | None = None


class EmbeddingResponse(BaseModel):
    id: str
    object: str = "list"
    data: list[EmbeddingData]
    model: str
    usage: EmbeddingUsage


class MinifiedEmbeddingRequest(BaseModel):
    input: str | list[str]
    model: str | None = None


@dataclass
class EmbeddingChutePack(ChutePack):
    """A chute that embeds, with its cord."""

    embed: Cord


def build_embedding_chute(
    username: str,
    model_name: str,
    node_selector: NodeSelector,
    image: str | Image = VLLM,
    tagline: str = "",
    readme: str = "",
    concurrency: int = 32,
    engine_args: str | None = None,
    revision: str | None = None,
    max_instances: int = 1,
    scaling_threshold: float = 0.75,
    shutdown_after_seconds: int = 300,
    pooling_type: str = "auto",
    max_embed_len: int = 3_072_000,
    enable_chunked_processing: bool = True,
    allow_external_egress: bool = False,
    tee: bool = False,
) -> EmbeddingChutePack:
    """Make a chute that serves an embedding model of Hugging Face with vLLM.

    The arguments are those of ``build_vllm_chute``, and: ``pooling_type``, ``MEAN``, ``CLS`` or
    ``LAST`` (``auto`` goes by the model's family); ``enable_chunked_processing``, whether an input
    longer than the model's window is cut in chunks, and then ``max_embed_len``, its longest
    length in tokens.

    Raises:
        Invalid: ``revision_missing`` or ``engine_argument_refused``.

    >>> pack = build_embedding_chute("bob", "Org/bge-m3", NodeSelector(), revision="0" * 40)
    >>> pack.embed
    Cord(POST /embed)
    """
    words = engine.engine_arguments(engine_args, (*REFUSED, "--pooler-config"))
    pinned = engine.checked_revision(revision, model_name)
    chute = Chute(
        username=username,
        name=model_name,
        image=image,
        tagline=tagline,
        readme=readme,
        standard_template="embedding",
        revision=pinned,
        node_selector=node_selector,
        concurrency=concurrency,
        max_instances=max_instances,
        shutdown_after_seconds=shutdown_after_seconds,
        scaling_threshold=scaling_threshold,
        allow_external_egress=allow_external_egress,
        tee=tee,
    )

    asked = language.Asked("/v1/embeddings", EmbeddingRequest)
    embed = language.engine_cord(chute, "embed", asked, MinifiedEmbeddingRequest, EmbeddingResponse)
    language.add_models(chute)
    pooler: dict[str, Any] = {"pooling_type": pooling_of(model_name, pooling_type)}
    if enable_chunked_processing:
        pooler |= {"enable_chunked_processing": True, "max_embed_len": max_embed_len}
    arguments = command(model_name, pinned, node_selector.gpu_count, pooler, words)
    environ = {"VLLM_WORKER_MULTIPROC_METHOD": "spawn", "VLLM_NO_USAGE_STATS": "1"}
    engine.attach(chute, lambda: engine.Engine(arguments, environ), model_name, pinned)
    return EmbeddingChutePack(chute=chute, embed=embed)


def pooling_of(model_name: str, pooling_type: str) -> str:
    """Return how the model's tokens are summed up.

    >>> pooling_of("BAAI/bge-m3", "auto"), pooling_of("intfloat/e5-large", "auto")
    ('CLS', 'MEAN')
    """
    if pooling_type != "auto":
        return pooling_type
    small = model_name.lower()
    return next((kind for part, kind in _POOLING if part in small), "MEAN")


def command(
    model_name: str, revision: str, gpus: int, pooler: dict[str, Any], words: list[str]
) -> list[str]:
    """Return vLLM's command line for a pooling model."""
    arguments = ["-m", "vllm.entrypoints.openai.api_server", "--model", model_name]
    arguments += ["--served-model-name", model_name, "--revision", revision]
    arguments += ["--pooler-config", json.dumps(pooler)]
    if not engine.has_argument(words, "--tensor-parallel-size", "-tp"):
        arguments += ["--tensor-parallel-size", str(gpus)]
    return arguments + words
