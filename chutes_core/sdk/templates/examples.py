"""The short requests that a language chute suggests for a first try, with its model's name.

Invariant: as in openai.py, the documents are those of the public SDK.
"""
# ruff: noqa: D101 - a docstring would become the description in the schema that the API shows

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, create_model

from chutes_core.sdk.templates.openai import DefaultRole

Model = type[BaseModel]

TEMPERATURE, SEED, MAX_TOKENS = 0.7, 42, 1024


class MinifiedMessage(BaseModel):
    role: DefaultRole = DefaultRole.user
    content: str = ""


@dataclass(frozen=True)
class Examples:
    """One suggestion for each way to ask a language model."""

    chat: Model
    chat_stream: Model
    completion: Model
    completion_stream: Model


def examples_for(model_name: str) -> Examples:
    """Return the suggestions for one model."""
    chat: dict[str, Any] = {"messages": (list[MinifiedMessage], [MinifiedMessage()])}
    completion: dict[str, Any] = {"prompt": (str, ...)}
    return Examples(
        chat=_suggestion("MinifiedChatCompletion", chat, model_name, stream=False),
        chat_stream=_suggestion("MinifiedStreamChatCompletion", chat, model_name, stream=True),
        completion=_suggestion("MinifiedCompletion", completion, model_name, stream=False),
        completion_stream=_suggestion(
            "MinifiedStreamCompletion", completion, model_name, stream=True
        ),
    )


def _suggestion(name: str, first: dict[str, Any], model_name: str, *, stream: bool) -> Model:
    fields: dict[str, Any] = {
        **first,
        "temperature": (float, TEMPERATURE),
        "seed": (int, SEED),
        "stream": (bool, stream),
        "max_tokens": (int, MAX_TOKENS),
        "model": (str, model_name),
    }
    return create_model(name, **fields)
