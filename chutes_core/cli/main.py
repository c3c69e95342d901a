"""The entrance of the `chutes` command.

Knows every command by name and help line, imports one only when it is called (a start costs well
under 0.3 s), and is the only place that turns an error into text and an exit code:

0 done · 1 refused by the server · 2 bad use · 3 the server cannot be reached · 130 interrupted

Invariant: a failure never exits 0, and prints what happened, its code and what to do next.
"""

import importlib
import json
import os
import sys
from collections.abc import Sequence

import click

from chutes_core.base.errors import ChutesError

EXIT_OK = 0
EXIT_REFUSED = 1
EXIT_BAD_USE = 2
EXIT_UNREACHABLE = 3
EXIT_INTERRUPTED = 130

COMMANDS: dict[str, tuple[str, str]] = {
    "alias": ("alias:alias", "Name several chutes at once: the first that can answers."),
    "balance": ("balance:balance", "Show your account, its balance and where to pay."),
    "build": ("build:build", "Build the image of a chute, at the validator or here."),
    "completion": ("completion:completion", "Print the shell's completion script."),
    "chutes": ("chutes:chutes", "List, show and delete deployed chutes."),
    "deposit": ("deposit:deposit", "Show or pay the developer deposit."),
    "dev": ("dev:dev", "Serve a chute here, without Docker, anew after every edit."),
    "doctor": ("doctor:doctor", "Check your setup, the validator, your credentials, a file."),
    "deploy": ("deploy:deploy", "Deploy a chute, or its next version."),
    "images": ("images:images", "List, show and delete images."),
    "init": ("init:init", "Write a working chute to begin with."),
    "inspect": ("inspect:inspect", "Show what a chute file amounts to, without a server."),
    "invoke": ("invoke:invoke", "Call a cord of a deployed chute."),
    "jobs": ("jobs:jobs", "Run a chute's jobs, watch them, fetch what they leave."),
    "keys": ("keys:keys", "Create, list and delete API keys."),
    "login": ("login:login", "Write the configuration of an account that you have."),
    "logs": ("status:logs", "Print what an instance prints, or an image's build log."),
    "link": ("link:link", "Link a validator's or owner's hotkey, or your coldkey."),
    "receipt": ("receipt:receipt", "Fetch and check the signed receipt of a call."),
    "recover": ("recover:recover", "Take an account back by its proven coldkey."),
    "refinger": ("login:refinger", "Not offered: a fingerprint opens nothing here."),
    "refund": ("refund:refund", "Ask the developer deposit back."),
    "startup-logs": ("startuplogs:startup_logs", "Print what an instance printed at its start."),
    "statement": ("statement:statement", "Show every movement of your credit."),
    "unlink": ("link:unlink", "End a link, or list the links."),
    "register": ("register:register", "Open an account with a hotkey of your wallet."),
    "report": ("share:report", "Say what was wrong with a call."),
    "rollback": ("rollback:rollback", "Deploy an earlier version of a chute again."),
    "run": ("run:run", "Serve a chute on this machine, or run one of its jobs."),
    "secrets": ("secrets:secrets", "Create, list and delete secrets of chutes."),
    "share": ("share:share", "Let another user see and call a chute."),
    "status": ("status:status", "Show the phase of a chute and its instances."),
    "transfer-balance": ("transfer:transfer_balance", "Give credit to another user."),
    "validators": ("validators:validators", "List the subnet's validators; choose one."),
    "warmup": ("warmup:warmup", "Ask for an instance of a chute and wait until it is hot."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called, not when they are listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        del ctx
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name][0].split(":")
        command = getattr(importlib.import_module(f"chutes_core.cli.{module}"), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=(
        "Settings: CHUTES_API_URL (the validator), CHUTES_CONFIG_PATH, CHUTES_API_KEY. "
        "Exit codes: 0 done, 1 refused by the server, 2 bad use, 3 unreachable."
    ),
)
@click.version_option(package_name="chutes-core", prog_name="chutes")
def cli() -> None:
    """Write, build, deploy and call chutes: applications on rented GPUs."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        result = cli.main(given, prog_name="chutes", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return EXIT_BAD_USE
    except click.ClickException as error:
        error.show()
        return EXIT_BAD_USE
    except click.Abort:
        click.echo("interrupted", err=True)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_REFUSED
    except ChutesError as error:
        _report(error, as_json="--json" in given)
        return exit_code_of(error)
    return result if isinstance(result, int) else EXIT_OK


def exit_code_of(error: ChutesError) -> int:
    """Return the documented exit code for an error."""
    if error.code == "unreachable":
        return EXIT_UNREACHABLE
    return EXIT_REFUSED if "http_status" in error.facts else EXIT_BAD_USE


def _report(error: ChutesError, *, as_json: bool) -> None:
    if as_json:
        document = {"message": error.message, "code": error.code, "hint": error.hint}
        click.echo(json.dumps({"error": {**document, **error.facts}}, default=str))
        return
    click.echo(f"error: {error.message} [{error.code}]", err=True)
    if error.hint:
        click.echo(f"hint:  {error.hint}", err=True)
    if "invocation_id" in error.facts:
        click.echo(f"invocation {error.facts['invocation_id']}", err=True)
