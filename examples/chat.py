"""Streaming chat behind OpenAI's API, with transformers and a tiny Llama of random weights.

The weights are drawn from a fixed seed at start-up, so nothing is downloaded and every instance
answers alike; what it says makes no sense. Put `LlamaForCausalLM.from_pretrained(…)` and the
model's tokenizer in their place and the rest stays. Its letters are the printable ASCII ones, one
token each. torch and transformers are in the image: this file loads on a laptop without them.
"""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncGenerator, Iterator
from typing import Any, Literal

from chutes.chute import Chute, NodeSelector
from chutes.image import Image
from pydantic import BaseModel, Field

MODEL = "tiny-random-llama"
FIRST, LETTERS = 32, 95  # printable ASCII: from the space to the tilde
WINDOW = 512  # tokens of prompt and answer

image = (
    Image(username="demo", name="chat", tag="1.0", readme="transformers and torch")
    .from_base("parachutes/python:3.12")
    .run_command("pip install torch==2.13.0 transformers~=5.23")
)

chute = Chute(
    username="demo",
    name="chat",
    image=image,
    tagline="A very small language model",
    node_selector=NodeSelector(gpu_count=1, min_vram_gb_per_gpu=16),
    concurrency=4,
)


class Message(BaseModel):
    role: Literal["system", "user", "assistant"]
    content: str = Field(max_length=20_000)


class ChatRequest(BaseModel):
    messages: list[Message] = Field(min_length=1, max_length=100)
    model: str = MODEL
    max_tokens: int = Field(default=32, ge=1, le=256)
    temperature: float = Field(default=1.0, ge=0, le=2)
    seed: int = Field(default=0, ge=0)
    stream: bool = False


@chute.on_startup()
async def load_model(self: Any) -> None:
    self.llama = await asyncio.to_thread(TinyLlama)


@chute.cord(public_api_path="/v1/chat/completions")
async def chat(self: Any, request: ChatRequest) -> dict[str, Any]:
    """The whole answer at once."""
    parts = [part async for part in letters(self.llama, request)]
    message = {"role": "assistant", "content": "".join(parts)}
    read = len(self.llama.prompt(request.messages))
    return {
        **head("chat.completion", request.model),
        "choices": [{"index": 0, "message": message, "finish_reason": "length"}],
        "usage": {
            "prompt_tokens": read,
            "completion_tokens": len(parts),
            "total_tokens": read + len(parts),
        },
    }


@chute.cord(public_api_path="/v1/chat/completions", stream=True)
async def chat_stream(self: Any, request: ChatRequest) -> AsyncGenerator[str, None]:
    """The same, each letter as soon as it is there; chosen by `"stream": true`."""
    first = head("chat.completion.chunk", request.model)
    yield event(first, {"role": "assistant", "content": ""}, None)
    async for part in letters(self.llama, request):
        yield event(first, {"content": part}, None)
    yield event(first, {}, "length")
    yield "data: [DONE]\n\n"


def head(kind: str, model: str) -> dict[str, Any]:
    """Return what every document of one answer begins with."""
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
    }


def event(first: dict[str, Any], delta: dict[str, str], finish: str | None) -> str:
    """Return one server-sent event."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return f"data: {json.dumps({**first, 'choices': [choice]})}\n\n"


async def letters(llama: "TinyLlama", request: ChatRequest) -> AsyncGenerator[str, None]:
    """Yield the answer's letters; each is computed in a thread, so that others are served too."""
    drawn = llama.answer(request.messages, request.max_tokens, request.temperature, request.seed)
    while (letter := await asyncio.to_thread(next, drawn, None)) is not None:
        yield letter


class TinyLlama:
    """Two layers, 64 wide; each call has a random generator and a cache of its own."""

    def __init__(self) -> None:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        self.torch = torch
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=LETTERS,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=WINDOW,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=None,
        )
        self.model = LlamaForCausalLM(config).eval().to(self.device)

    def prompt(self, messages: list[Message]) -> list[int]:
        """Return the tokens that the model reads: the end of the talk, one for each letter."""
        text = " ".join(f"{message.role}: {message.content}" for message in messages)
        codes = (ord(letter) - FIRST for letter in text)
        return [code if 0 <= code < LETTERS else 0 for code in codes][-WINDOW // 2 :]

    def answer(
        self, messages: list[Message], count: int, temperature: float, seed: int
    ) -> Iterator[str]:
        """Yield ``count`` letters; temperature 0 always takes the likeliest."""
        torch = self.torch
        dice = torch.Generator(device=self.device).manual_seed(seed)
        tokens = torch.tensor([self.prompt(messages)], device=self.device)  # (1, read)
        cache = None
        for _ in range(count):
            with torch.inference_mode():
                output = self.model(input_ids=tokens, past_key_values=cache, use_cache=True)
                cache, scores = output.past_key_values, output.logits[0, -1].float()  # (letters,)
                if temperature == 0:
                    token = scores.argmax().reshape(1, 1)
                else:
                    chances = torch.softmax(scores / temperature, dim=-1)
                    token = torch.multinomial(chances, 1, generator=dice).reshape(1, 1)
            tokens = token  # (1, 1)
            yield chr(FIRST + int(token))
