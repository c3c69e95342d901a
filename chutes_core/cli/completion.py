"""`chutes completion SHELL`: the script with which a shell completes our commands and options.

Invariant: nothing is installed; the script is printed, and the shell's start-up file evaluates it.
"""

import json

import click
from click.shell_completion import get_completion_class

from chutes_core.base.errors import Invalid
from chutes_core.cli.options import json_option

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@json_option
def completion(shell: str, as_json: bool) -> None:
    """Print the completion script of SHELL.

    bash and zsh: eval "$(chutes completion bash)" in ~/.bashrc or ~/.zshrc; fish:
    chutes completion fish | source in config.fish.
    """
    root = click.get_current_context().find_root().command
    found = get_completion_class(shell)
    if found is None:
        raise Invalid("no_completion", f"{shell} is not known here", hint="bash, zsh or fish")
    script = found(root, {}, "chutes", "_CHUTES_COMPLETE").source()
    click.echo(json.dumps({"shell": shell, "script": script}) if as_json else script)
