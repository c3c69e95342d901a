"""Writes docs/sdk.md, docs/cli.md and docs/errors.md from the code; --check only compares.

Invariant: the pages hold nothing but what the code says: signatures and docstrings, the commands'
own help, and the typed errors with the text, status and hint that they are raised with.
"""

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

if __package__ in (None, ""):  # run as a script of the checkout
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from chutes_core.base.gpus import GPU_CLASSES
from chutes_core.cli.main import COMMANDS, cli
from chutes_core.sdk.chute import Chute, ChutePack
from chutes_core.sdk.cord import Cord
from chutes_core.sdk.image import Image
from chutes_core.sdk.job import Job, JobResult, Port
from chutes_core.sdk.node_selector import NodeSelector
from chutes_core.sdk.templates.diffusion import build_diffusion_chute
from chutes_core.sdk.templates.embedding import build_embedding_chute
from chutes_core.sdk.templates.sglang import build_sglang_chute
from chutes_core.sdk.templates.vllm import build_vllm_chute
from chutes_core.testing import ChuteClient, JobOutput
from scripts.error_codes import ErrorCode, error_codes

DOCS = Path(__file__).resolve().parent.parent / "docs"
WRITTEN = "Written by `python scripts/write_reference.py`; edit the code, not this page."

STARS = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}

SDK_NOUNS: tuple[tuple[str, str, tuple[Any, ...]], ...] = (
    ("Image", "from chutes.image import Image", (Image,)),
    ("Chute", "from chutes.chute import Chute, ChutePack", (Chute, ChutePack)),
    ("Cord", "made by `@chute.cord(…)`", (Cord,)),
    ("NodeSelector", "from chutes.chute import NodeSelector", (NodeSelector,)),
    ("Jobs", "from chutes.chute import Job, Port", (Job, Port, JobResult)),
    (
        "Templates",
        "from chutes.chute.template.vllm import build_vllm_chute (sglang, embedding, diffusion)",
        (build_vllm_chute, build_sglang_chute, build_embedding_chute, build_diffusion_chute),
    ),
    (
        "Testing",
        "from chutes_core.testing import ChuteClient, install",
        (ChuteClient, JobOutput),
    ),
)


def sdk_page() -> str:
    """Return docs/sdk.md."""
    parts = [f"# SDK\n{WRITTEN} A tour is docs/quickstart.md; whole chutes are in examples/.\n"]
    for title, source, nouns in SDK_NOUNS:
        parts.append(f"\n## {title}\n`{source}`\n" if "import" in source else f"\n## {title}\n")
        parts += [_noun(noun) for noun in nouns]
        if title == "NodeSelector":
            parts.append(_gpus())
    return "".join(parts)


def cli_page() -> str:
    """Return docs/cli.md."""
    root = click.Context(cli, info_name="chutes")
    parts = [f"# Command line\n{WRITTEN}\n\n{inspect.getdoc(cli.callback)}\n"]
    parts.append(
        "\nExit codes: 0 done · 1 refused by the server · 2 bad use · 3 the server cannot be "
        "reached · 130 interrupted. With `--json` stdout holds one document, an error too: "
        '`{"error": {"code", "message", "hint"}}`.\n'
    )
    for name in sorted(COMMANDS):
        command = cli.get_command(root, name)
        assert command is not None
        parts += _command(command, name, root)
    return "".join(parts)


def errors_page() -> str:
    """Return docs/errors.md."""
    lines = [
        f"# Errors\n{WRITTEN}\n",
        'Every error of the API is JSON, `{"detail", "code", "hint"}`; the command line prints the '
        "same three. The code is stable; `…` stands for what differs. `here` marks what the "
        "command or the SDK finds out without a server (exit code 2).\n",
        "| code | status | what happened | what to do |",
        "|---|---|---|---|",
    ]
    lines += [_error(one) for one in error_codes()]
    return "\n".join(lines) + "\n"


PAGES: dict[str, Callable[[], str]] = {
    "sdk.md": sdk_page,
    "cli.md": cli_page,
    "errors.md": errors_page,
}


def _noun(noun: Any) -> str:
    text = [f"\n### {noun.__name__}\n```python\n{_signature(noun)}\n```\n", _doc(noun)]
    for name, member in vars(noun).items() if inspect.isclass(noun) else ():
        if name.startswith("_") or name in ("model_config",):
            continue
        if isinstance(member, property):
            text.append(f"- `.{name}`: {_first(member)}\n")
        elif inspect.isfunction(member):
            text.append(f"\n#### {noun.__name__}.{name}\n```python\n{_signature(member)}\n```\n")
            text.append(_doc(member))
    return "".join(text)


def _signature(noun: Any) -> str:
    parameters = list(inspect.signature(noun).parameters.values())
    if parameters and parameters[0].name == "self":
        parameters = parameters[1:]
    shown = [_parameter(one) for one in parameters]
    line = f"{noun.__name__}({', '.join(shown)})"
    if len(line) <= 96:
        return line
    return f"{noun.__name__}(\n" + "".join(f"    {one},\n" for one in shown) + ")"


def _parameter(one: inspect.Parameter) -> str:
    text = f"{STARS.get(one.kind.name, '')}{one.name}"
    if one.annotation is not one.empty:
        text += f": {_hint(one.annotation)}"
    if one.default is not one.empty:
        text += f" = {one.default!r}"
    return text


def _hint(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"\b(?:[a-z_]\w*\.)+(?=\w)", "", text.replace("'", ""))


def _doc(noun: Any) -> str:
    """Return a docstring as Markdown: sections as lists, examples as code."""
    lines, in_example = [], False
    for line in (inspect.getdoc(noun) or "").splitlines():
        if line.startswith((">>>", "...")) and not in_example:
            lines.append("```python")
            in_example = True
        elif in_example and not line.strip():
            lines.append("```")
            in_example = False
        if not in_example and (section := re.match(r"^(Args|Raises|Returns|Yields):$", line)):
            line = f"{section.group(1)}:\n"
        elif not in_example and (entry := re.match(r"^ {4}(\S.*?): (.*)$", line)):
            line = f"- `{entry.group(1)}`: {entry.group(2)}"
        elif not in_example:
            line = line.strip()
        lines.append(line)
    return "\n".join([*lines, "```" if in_example else ""]).rstrip() + "\n"


def _first(noun: Any) -> str:
    return (inspect.getdoc(noun) or "").splitlines()[0]


def _gpus() -> str:
    rows = sorted(GPU_CLASSES.values(), key=lambda gpu: (gpu.usd_micros_per_hour, gpu.short_name))
    lines = ["\n| GPU | memory, GB | USD per hour |", "|---|---|---|"]
    lines += [
        f"| `{gpu.short_name}` | {gpu.vram_gb} | {gpu.usd_micros_per_hour / 1_000_000:.2f} |"
        for gpu in rows
    ]
    return "\n".join(lines) + "\n"


def _command(command: click.Command, path: str, parent: click.Context) -> Iterator[str]:
    context = click.Context(command, info_name=path.split()[-1], parent=parent)
    usage = " ".join(context.command.collect_usage_pieces(context))
    yield f"\n## chutes {path}\n`chutes {path} {usage}`\n\n{_plain(command.help or '')}\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _command(inner, f"{path} {name}", context)
        return
    options = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    if options:
        yield "\n| option | meaning |\n|---|---|\n"
    for option in options:
        names, meaning = option.get_help_record(context) or ("", "")
        yield f"| `{_cell(names)}` | {_cell(meaning)} |\n"


def _plain(text: str) -> str:
    return inspect.cleandoc(text.replace("\b", ""))


def _error(one: ErrorCode) -> str:
    cells = (f"`{one.code}`", one.status, _cell(one.message), _cell(one.hint))
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


@click.command()
@click.option("--check", is_flag=True, help="Fail if a page is not what the code says.")
def main(*, check: bool) -> None:
    """Write the three pages."""
    old = []
    for name, write in PAGES.items():
        path, text = DOCS / name, write()
        if not check:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            old.append(f"docs/{name}")
    if old:
        click.echo(f"{', '.join(old)}: run python scripts/write_reference.py", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
