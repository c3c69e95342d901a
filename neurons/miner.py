"""The miner neuron: `python neurons/miner.py --help`.

Reads CHUTES_MINER_* and options (an option wins; options stand before `doctor` or `status`), runs
until SIGTERM, never prompts. Exit codes: 0 ended by a signal, 1 an error that is a bug, 2 refused
to start (the log names the code and what to do), 3 the hotkey lost its registration; `doctor`: 4 a
check failed; `status`: 5 the miner does not run.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a script of the checkout, which need not be installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click
import uvloop
from loguru import logger
from pydantic import ValidationError

from chutes_core.base.errors import ChutesError, Invalid
from chutes_core.base.logs import configure_logs
from chutes_core.base.streams import fill_standard_streams
from chutes_core.miner import operate
from chutes_core.miner.app import run
from chutes_core.miner.operate import EXIT_NOT_RUNNING
from chutes_core.miner.settings import MinerSettings

EXIT_REFUSED = 2


@click.group(invoke_without_command=True, context_settings={"show_default": False})
@click.option("--wallet-path", type=click.Path(path_type=Path), help="directory of wallets")
@click.option("--wallet-name", help="wallet whose hotkey and coldkeypub lie here")
@click.option("--hotkey", help="name of the hotkey in the wallet")
@click.option("--allow-coldkey", is_flag=True, default=None, help="devnet: accept a coldkey here")
@click.option("--chain-url", help="ws:// address of a Subtensor node, or a network name")
@click.option("--netuid", type=int, help="the subnet")
@click.option("--data-dir", type=click.Path(path_type=Path), help="one directory for each miner")
@click.option("--host", help="address to listen on")
@click.option("--port", type=int, help="port of the signed HTTP calls; 0 takes any")
@click.option("--external-ip", help="address to announce on chain")
@click.option("--external-port", type=int, help="port to announce; default: --port")
@click.option("--relay-port", type=int, help="port that carries calls to instances; 0 takes any")
@click.option("--runtime", type=click.Choice(["docker", "process"]), help="process: devnet only")
@click.option("--docker-host", help="the engine's address; default: DOCKER_HOST or its socket")
@click.option("--graval-home", type=click.Path(path_type=Path), help="Python of graval provers")
@click.option("--instance-memory-mb", type=int, help="per GPU; default: an equal part")
@click.option("--instance-cpus", type=float, help="per GPU; default: an equal part")
@click.option("--registry", help="a registry of images that may be private; see docs/images.md")
@click.option("--registry-user", help="this miner's user there; its password: the environment")
@click.option("--declare-gpu", help="devnet: stand-in GPUs, e.g. h100_sxm:1,a100:2")
@click.option("--validators", help="auto, or hotkeys to serve, separated by commas")
@click.option("--min-validator-stake-tao", help="serve validators with at least this stake")
@click.option("--lease-blocks", type=int, help="length of a lease")
@click.option("--min-run-seconds", type=float, help="least time of an instance on a lent GPU")
@click.option("--stand-bys", type=int, help="instances held ready on idle GPUs; 0: none")
@click.option("--cache-gb", type=int, help="GB of models kept for their next launch; 0: none")
@click.option("--cache-dir", type=click.Path(path_type=Path), help="where; default: --data-dir")
@click.option("--drain-seconds", type=float, help="how long calls may go on after SIGTERM")
@click.option("--operator-host", help="address of /metrics and /status; default: 127.0.0.1")
@click.option("--operator-port", type=int, help="its port; 0 takes any, and keeps it")
@click.option("--poll-seconds", type=float, help="pause between rounds")
@click.option("--gpu-python", help="interpreter for graval provers")
@click.option("--hourly-cost-usd-micros", type=int, help="what this node costs its operator")
@click.option("--log-level", help="DEBUG, INFO, WARNING or ERROR")
@click.option("--json-logs", is_flag=True, default=None, help="log lines as JSON")
@click.option("--wait-registered", is_flag=True, default=None, help="wait for the registration")
@click.option(
    "--ready-file", type=click.Path(path_type=Path), help="written as JSON once it serves"
)
@click.pass_context
def main(context: click.Context, /, **options: Any) -> None:
    """Run a miner: lease GPUs to validators, run their chutes, carry their calls."""
    if context.invoked_subcommand is None:
        sys.exit(start(options))
    context.obj = options


@main.command()
@click.option("--json", "as_json", is_flag=True, help="print the findings as JSON")
@click.pass_obj
def doctor(options: dict[str, Any], as_json: bool) -> None:
    """Look at everything that a miner needs, and say how to repair what is missing."""
    sys.exit(_operate(options, lambda settings: _doctor(settings, as_json=as_json)))


@main.command()
@click.option("--json", "as_json", is_flag=True, help="print the status as JSON")
@click.pass_obj
def status(options: dict[str, Any], as_json: bool) -> None:
    """Ask the running miner of this --data-dir what runs, what it earns, and why GPUs are idle."""
    sys.exit(_operate(options, lambda settings: _status(settings, as_json=as_json)))


def _operate(options: dict[str, Any], command: Callable[[MinerSettings], int]) -> int:
    """Run a command with these options; return its exit code."""
    configure_logs("ERROR")
    try:
        return command(_settings(options))
    except ChutesError as error:
        click.echo(f"error: {error}", err=True)
        not_running = error.code in ("miner_not_running", "miner_never_ran")
        return EXIT_NOT_RUNNING if not_running else EXIT_REFUSED


def _doctor(settings: MinerSettings, *, as_json: bool) -> int:
    report = operate.doctor(settings)
    click.echo(json.dumps(report.as_json(), indent=2) if as_json else report.text())
    return report.exit_code


def _status(settings: MinerSettings, *, as_json: bool) -> int:
    found = operate.read_status(settings)
    click.echo(found.model_dump_json(indent=2) if as_json else operate.status_text(found))
    return 0


def start(options: dict[str, Any]) -> int:
    """Run with these options over the environment; return the exit code."""
    configure_logs()
    try:
        settings = _settings(options)
        configure_logs(settings.log_level.upper(), as_json=settings.json_logs)
        return _run_until_end(settings)
    except ChutesError as error:
        logger.bind(code=error.code).error("{}", error)
        return EXIT_REFUSED


def _run_until_end(settings: MinerSettings) -> int:
    """Like uvloop.run, but without waiting for threads: a chain read may hang in one."""
    fill_standard_streams()
    loop = uvloop.new_event_loop()
    try:
        return loop.run_until_complete(run(settings))
    finally:
        loop.close()


def _settings(options: dict[str, Any]) -> MinerSettings:
    try:
        settings = MinerSettings.load(**options)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise Invalid("bad_setting", f"{name}: {first['msg']}") from error
    _ = (
        settings.declared_gpus,
        settings.min_stake_rao,
        settings.resolvers,
    )  # parsed here to refuse bad text at once
    return settings


if __name__ == "__main__":
    try:
        main(standalone_mode=True)
    except SystemExit as ended:
        # The interpreter would join that thread; what had to be closed is closed by now.
        sys.stdout.flush()
        sys.stderr.flush()
        code = ended.code
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)
