"""The cords that every language engine's chute has: chat, completion, both as streams, and models.

All of them are passthrough cords to the engine beside the chute (engine.py), so their functions
only say, in their hints, what comes back. Invariant: names, order, paths and schemas are those of
the public SDK's templates (shared/PUBLIC_API, Chute files).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from chutes_core.sdk.chute import Chute, ChutePack
from chutes_core.sdk.cord import Cord
from chutes_core.sdk.templates import openai
from chutes_core.sdk.templates.engine import PORT
from chutes_core.sdk.templates.examples import examples_for

Model = type[BaseModel]


@dataclass
class LanguageChute(ChutePack):
    """A chute that speaks OpenAI's API, with its cords by name."""

    chat: Cord
    completion: Cord
    chat_stream: Cord
    completion_stream: Cord
    models: Cord


def add_cords(chute: Chute, model_name: str, *, tokenizer: bool) -> dict[str, Cord]:
    """Declare the cords of a language chute and return those that its pack names.

    Args:
        chute: gets the cords.
        model_name: stands in the suggested requests.
        tokenizer: whether the engine turns text into tokens and back, too.
    """
    examples = examples_for(model_name)
    chat = Asked("/v1/chat/completions", openai.ChatCompletionRequest)
    completion = Asked("/v1/completions", openai.CompletionRequest)
    cords = {
        "chat_stream": engine_cord(
            *(chute, "chat_stream", chat, examples.chat_stream),
            openai.ChatCompletionStreamResponse,
            stream=True,
        ),
        "completion_stream": engine_cord(
            *(chute, "completion_stream", completion, examples.completion_stream),
            openai.CompletionStreamResponse,
            stream=True,
        ),
        "chat": engine_cord(chute, "chat", chat, examples.chat, openai.ChatCompletionResponse),
    }
    if tokenizer:
        there = Asked("/tokenize", openai.TokenizeRequest)
        back = Asked("/detokenize", openai.DetokenizeRequest)
        engine_cord(chute, "do_tokenize", there, there.request, openai.TokenizeResponse)
        engine_cord(chute, "do_detokenize", back, back.request, openai.DetokenizeResponse)
    cords["completion"] = engine_cord(
        chute, "completion", completion, examples.completion, openai.CompletionResponse
    )
    cords["models"] = add_models(chute)
    return cords


@dataclass(frozen=True)
class Asked:
    """A path of the engine and what is posted to it."""

    path: str
    request: Model


def engine_cord(
    chute: Chute, name: str, asked: Asked, example: Model, answer: Model, *, stream: bool = False
) -> Cord:
    """Declare a cord that hands POST requests on to the same path of the engine."""
    declare = chute.cord(
        passthrough_path=asked.path,
        passthrough_port=PORT,
        public_api_path=asked.path,
        passthrough=True,
        stream=stream,
        input_schema=asked.request,
        minimal_input_schema=example,
    )
    return declare(_answering(name, answer))


def add_models(chute: Chute) -> Cord:
    """Declare the cord that lists the engine's models."""
    declare = chute.cord(
        passthrough_path="/v1/models",
        passthrough_port=PORT,
        public_api_path="/v1/models",
        public_api_method="GET",
        method="GET",
        passthrough=True,
    )
    return declare(_answering("get_models", None))


def _answering(name: str, answer: Model | None) -> Callable[..., Any]:
    """Return a function whose hints say what the engine answers; nobody calls it."""

    async def unread(data: Any) -> Any:
        return data

    unread.__name__ = name
    unread.__annotations__ = {} if answer is None else {"return": answer}
    return unread
