"""A language model behind vLLM, from one call.

Invariant: the function's parameters, and the image, selector, cords and schemas that it makes, are
those of the public SDK 0.6.x. vLLM itself lies in the image; this file needs none of it.
"""

from chutes_core.sdk.chute import Chute
from chutes_core.sdk.image import Image
from chutes_core.sdk.node_selector import NodeSelector
from chutes_core.sdk.templates import engine, language
from chutes_core.sdk.templates.language import LanguageChute
from chutes_core.sdk.templates.openai import *  # noqa: F403 - chute files import them from here

VLLM = "chutes/vllm:nightly-2025111700"
REFUSED = ("--revision", "--served-model-name", "--api-key", "--host", "--port", "--model")
VLLMChute = LanguageChute


def build_vllm_chute(
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
    allow_external_egress: bool = False,
    tee: bool = False,
) -> LanguageChute:
    """Make a chute that serves a model of Hugging Face with vLLM, over OpenAI's API.

    Args:
        username: the account that owns it.
        model_name: the model's repository, e.g. ``Org/Model-7B``; also the chute's name.
        node_selector: the GPUs it asks for; the model is split over all of an instance's.
        image: an image that has vLLM.
        tagline: one line shown in lists.
        readme: Markdown shown beside it.
        concurrency: calls that one instance serves at a time.
        engine_args: more arguments for vLLM, as on its command line.
        revision: the commit of the model; required.
        max_instances: the most instances at a time.
        scaling_threshold: busy share from which another instance is wanted.
        shutdown_after_seconds: idle time after which an instance ends.
        allow_external_egress: whether instances may dial out while they serve.
        tee: declared for the API; no enclave is used yet.

    Raises:
        Invalid: ``revision_missing`` or ``engine_argument_refused``.

    >>> pack = build_vllm_chute("bob", "Org/M-7B", NodeSelector(gpu_count=2), revision="0" * 40)
    >>> pack.chat
    Cord(POST /chat)
    """
    words = engine.engine_arguments(engine_args, REFUSED)
    pinned = engine.checked_revision(revision, model_name)
    chute = Chute(
        username=username,
        name=model_name,
        image=image,
        tagline=tagline,
        readme=readme,
        standard_template="vllm",
        revision=pinned,
        node_selector=node_selector,
        concurrency=concurrency,
        max_instances=max_instances,
        shutdown_after_seconds=shutdown_after_seconds,
        scaling_threshold=scaling_threshold,
        allow_external_egress=allow_external_egress,
        tee=tee,
    )
    cords = language.add_cords(chute, model_name, tokenizer=True)
    arguments = command(model_name, pinned, node_selector.gpu_count, words)
    environ = {"VLLM_WORKER_MULTIPROC_METHOD": "spawn", "VLLM_NO_USAGE_STATS": "1"}
    engine.attach(chute, lambda: engine.Engine(arguments, environ), model_name, pinned)
    return VLLMChute(chute=chute, **cords)


def command(model_name: str, revision: str, gpus: int, words: list[str]) -> list[str]:
    """Return vLLM's command line; prompts and answers are kept out of its log."""
    arguments = ["-m", "vllm.entrypoints.openai.api_server", "--model", model_name]
    arguments += ["--served-model-name", model_name, "--revision", revision]
    if not engine.has_argument(words, "--tensor-parallel-size", "-tp"):
        arguments += ["--tensor-parallel-size", str(gpus)]
    if not engine.has_argument(words, "--enable-log-requests", "--no-enable-log-requests"):
        arguments += ["--no-enable-log-requests"]
    return arguments + words
