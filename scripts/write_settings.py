"""Writes docs/settings.md from the settings classes of all roles; --check only compares.

Invariant: the page holds nothing but what the classes say: name, default, description.
"""

import inspect
import re
import sys
from pathlib import Path

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

if __package__ in (None, ""):  # run as a script of the checkout
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from chutes_core.devnet.settings import DevnetSettings
from chutes_core.miner.settings import MinerSettings
from chutes_core.runner.settings import PREFIX as RUNNER_PREFIX
from chutes_core.runner.settings import RunnerSettings
from chutes_core.validator.settings import ValidatorSettings
from chutes_core.validator.signer.settings import SignerSettings

PAGE = Path(__file__).resolve().parent.parent / "docs" / "settings.md"
ROLES: tuple[tuple[str, type[BaseModel]], ...] = (
    ("Validator", ValidatorSettings),
    ("Signer of refunds", SignerSettings),
    ("Miner", MinerSettings),
    ("Runner (set by the miner)", RunnerSettings),
    ("Devnet", DevnetSettings),
)
INTRODUCTION = """# Settings

Written by `python scripts/write_settings.py`; edit the classes, not this page. An empty variable
counts as not given, an unknown one with a role's prefix is refused with the closest name. Every
setting of a neuron is an option of its script too (`--data-dir`), and an option wins.
"""


def page() -> str:
    """Return the page as it should be."""
    return INTRODUCTION + "".join(_section(title, model) for title, model in ROLES)


def _section(title: str, model: type[BaseModel]) -> str:
    prefix = str(model.model_config.get("env_prefix") or RUNNER_PREFIX)
    told = _told_by(inspect.getdoc(model) or "")
    lines = [f"\n## {title}\n", "| variable | default | meaning |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        meaning = field.description or told.get(name) or name.replace("_", " ")
        lines.append(f"| `{prefix}{name.upper()}` | {_default(field)} | {_cell(meaning)} |")
    return "\n".join(lines) + "\n"


def _told_by(docstring: str) -> dict[str, str]:
    """Read the lines `name: meaning` of a docstring's Args."""
    _, _, args = docstring.partition("Args:\n")
    return dict(re.findall(r"^ {4}(\w+): (.+)$", args, re.MULTILINE))


def _default(field: FieldInfo) -> str:
    if field.is_required() or field.default is PydanticUndefined:
        return "required"
    value = field.default
    if value is None or value == "":
        return "none"
    if str(value) == sys.executable:
        return "the running Python"
    root = str(PAGE.parent.parent)
    return f"`{_cell(str(value).removeprefix(root + '/'))}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


@click.command()
@click.option("--check", is_flag=True, help="Fail if the page is not what the classes say.")
def main(*, check: bool) -> None:
    """Write docs/settings.md."""
    text = page()
    if not check:
        PAGE.write_text(text)
    elif not PAGE.exists() or PAGE.read_text() != text:
        click.echo("docs/settings.md is old: python scripts/write_settings.py", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
