"""A language model behind SGLang, from one call.

Invariant: the function's parameters, and the image, selector, cords and schemas that it makes, are
those of the public SDK 0.6.x, which announces it as the template ``vllm``. SGLang itself lies in
the image; this file needs none of it.
"""

from chutes_core.sdk.chute import Chute
from chutes_core.sdk.image import Image
from chutes_core.sdk.node_selector import NodeSelector
from chutes_core.sdk.templates import engine, language
from chutes_core.sdk.templates.language import LanguageChute
from chutes_core.sdk.templates.openai import *  # noqa: F403 - chute files import them from here

SGLANG = "chutes/sglang:nightly-2025111800"
REFUSED = ("--revision", "--served-model-name", "--api-key", "--host", "--port", "--model-path")
SGLangChute = LanguageChute


def build_sglang_chute(
    username: str,
    model_name: str,
    node_selector: NodeSelector,
    image: str | Image = SGLANG,
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
    """Make a chute that serves a model of Hugging Face with SGLang, over OpenAI's API.

    The arguments are those of ``build_vllm_chute``; ``engine_args`` are SGLang's own.

    Raises:
        Invalid: ``revision_missing`` or ``engine_argument_refused``.

    >>> pack = build_sglang_chute("bob", "Org/M-7B", NodeSelector(gpu_count=2), revision="0" * 40)
    >>> pack.chute.image_ref
    'chutes/sglang:nightly-2025111800'
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
    cords = language.add_cords(chute, model_name, tokenizer=False)
    arguments = command(model_name, pinned, node_selector.gpu_count, words)
    engine.attach(chute, lambda: engine.Engine(arguments), model_name, pinned)
    return SGLangChute(chute=chute, **cords)


def command(model_name: str, revision: str, gpus: int, words: list[str]) -> list[str]:
    """Return SGLang's command line; prompts and answers are kept out of its log."""
    arguments = ["-m", "sglang.launch_server", "--model-path", model_name]
    arguments += ["--served-model-name", model_name, "--revision", revision]
    if not engine.has_argument(words, "--tp", "--tp-size", "--tensor-parallel-size"):
        arguments += ["--tp", str(gpus)]
    if not engine.has_argument(words, "--log-requests-level"):
        arguments += ["--log-requests-level", "0"]
    return arguments + words
