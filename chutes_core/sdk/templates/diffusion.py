"""A picture model behind diffusers, from one call.

Invariant: the function's parameters, and the image, selector, cord and schemas that it makes, are
those of the public SDK 0.6.x. torch and diffusers lie in the image; this file needs neither.
"""
# ruff: noqa: D101 - a docstring would become the description in the schema that the API shows

import asyncio
import importlib
import io
from dataclasses import dataclass
from typing import Any

from fastapi import Response
from pydantic import BaseModel, Field

from chutes_core.base.errors import Invalid
from chutes_core.sdk.chute import Chute, ChutePack
from chutes_core.sdk.cord import Cord
from chutes_core.sdk.image import Image
from chutes_core.sdk.node_selector import NodeSelector

DIFFUSION = "chutes/diffusion:0.34.0.po"
JPEG_QUALITY = 85


class GenerationInput(BaseModel):
    prompt: str
    negative_prompt: str = ""
    height: int = Field(1024, ge=128, le=2048)
    width: int = Field(1024, ge=128, le=2048)
    num_inference_steps: int = Field(25, ge=1, le=50)
    guidance_scale: float = Field(7.5, ge=1.0, le=20.0)
    seed: int | None = Field(None, ge=0, le=2**32 - 1)


class MinifiedGenerationInput(BaseModel):
    prompt: str = "a beautiful mountain landscape"


@dataclass
class DiffusionChute(ChutePack):
    """A chute that paints, with its cord."""

    generate: Cord


def build_diffusion_chute(
    username: str,
    name: str,
    model_name_or_url: str,
    node_selector: NodeSelector,
    tagline: str = "",
    readme: str = "",
    concurrency: int = 3,
    version: str | None = None,
    revision: str | None = None,
    image: str | Image | None = DIFFUSION,
    pipeline_args: dict[str, Any] | None = {},  # noqa: B006 - the public default; never changed
    max_instances: int = 1,
    scaling_threshold: float = 0.75,
    shutdown_after_seconds: int = 300,
    tee: bool = False,
) -> DiffusionChute:
    """Make a chute that paints with a diffusion model of Hugging Face, or of one weights file.

    Args:
        username: the account that owns it.
        name: the chute's name.
        model_name_or_url: a repository of Hugging Face, or the address of a ``.safetensors`` file.
        node_selector: the GPUs it asks for.
        tagline: one line shown in lists.
        readme: Markdown shown beside it.
        concurrency: calls that one instance serves at a time.
        version: of a file at an address, the version (``{version}`` in it is replaced).
        revision: the commit of the repository.
        image: an image that has torch and diffusers.
        pipeline_args: more arguments for the pipeline.
        max_instances: the most instances at a time.
        scaling_threshold: busy share from which another instance is wanted.
        shutdown_after_seconds: idle time after which an instance ends.
        tee: declared for the API; no enclave is used yet.

    >>> build_diffusion_chute("bob", "sdxl", "Org/sdxl", NodeSelector()).generate
    Cord(POST /generate)
    """
    chute = Chute(
        username=username,
        name=name,
        image=image or DIFFUSION,
        tagline=tagline,
        readme=readme,
        standard_template="diffusion",
        node_selector=node_selector,
        concurrency=concurrency,
        max_instances=max_instances,
        shutdown_after_seconds=shutdown_after_seconds,
        scaling_threshold=scaling_threshold,
        tee=tee,
    )
    source = _Source(model_name_or_url, version, revision, dict(pipeline_args or {}))
    return DiffusionChute(chute=chute, generate=_add_painting(chute, source))


def _add_painting(chute: Chute, source: "_Source") -> Cord:
    """Declare the hook that loads the pipeline and the cord that paints with it."""

    @chute.on_startup()
    async def load_pipeline(self: Any) -> None:
        self.pipeline = await asyncio.to_thread(source.load)
        self.one_at_a_time = asyncio.Lock()  # a pipeline keeps the state of its last picture

    @chute.cord(
        public_api_path="/generate",
        input_schema=GenerationInput,
        minimal_input_schema=MinifiedGenerationInput,
        output_content_type="image/jpeg",
    )
    async def generate(self: Any, params: GenerationInput) -> Response:
        async with self.one_at_a_time:
            picture = await asyncio.to_thread(paint, self.pipeline, params)
        return Response(picture, media_type="image/jpeg")

    return generate


def paint(pipeline: Any, wanted: GenerationInput) -> bytes:
    """Return a picture as JPEG."""
    torch = importlib.import_module("torch")
    generator = None
    if wanted.seed is not None:
        generator = torch.Generator(device="cuda").manual_seed(wanted.seed)
    with torch.inference_mode():
        result = pipeline(**wanted.model_dump(exclude={"seed"}), generator=generator)
    buffer = io.BytesIO()
    result.images[0].save(buffer, format="JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


@dataclass(frozen=True)
class _Source:
    """Where the weights come from."""

    name: str
    version: str | None
    revision: str | None
    pipeline_args: dict[str, Any]

    def load(self) -> Any:
        """Fetch the weights and return the pipeline on the GPU.

        Raises:
            Invalid: ``weights_not_a_file``.
        """
        torch = importlib.import_module("torch")  # the image has both
        diffusers = importlib.import_module("diffusers")
        options = {"torch_dtype": torch.float16, **self.pipeline_args}
        if "://" in self.name:
            address = self.name.replace("{version}", self.version or "")
            if not address.partition("?")[0].endswith(".safetensors"):
                raise Invalid(
                    "weights_not_a_file",
                    f"{address} is no .safetensors file",
                    hint="give the address of the file itself, or a repository of Hugging Face",
                )
            pipeline = diffusers.StableDiffusionXLPipeline.from_single_file(address, **options)
        else:
            pipeline = diffusers.DiffusionPipeline.from_pretrained(
                self.name, revision=self.revision, **options
            )
        return pipeline.to("cuda")
