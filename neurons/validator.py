"""The validator neuron: reads settings, runs, stops on SIGTERM. Every option is a setting."""

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import click
import uvloop
from loguru import logger
from pydantic import ValidationError

if __package__ in (None, ""):  # run as a script of the checkout
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ != "__mp_main__":  # the verifier's helper processes read this file and run none of it
    from chutes_core.base.errors import ChutesError
    from chutes_core.base.latency import favour_latency
    from chutes_core.base.logs import configure_logs
    from chutes_core.base.streams import fill_standard_streams
    from chutes_core.validator.lifetime import run
    from chutes_core.validator.settings import ValidatorSettings

EXIT_REFUSED = 2


def main(**options: Any) -> None:
    """Run a validator: attest miners, route paid calls, set weights.

    Every option can be set as CHUTES_VALIDATOR_<NAME> too; an option wins. Exit codes: 0 stopped
    by a signal, 1 failed, 2 refused to start (the reason and what to do are in the log).
    """
    try:
        settings = ValidatorSettings.load(**options)
    except ValidationError as error:
        configure_logs()
        for problem in error.errors():
            logger.error("setting refused: {} {}", problem["loc"], problem["msg"])
        sys.exit(EXIT_REFUSED)
    except ChutesError as error:
        configure_logs()
        logger.error("setting refused: {}", error)
        sys.exit(EXIT_REFUSED)
    configure_logs(settings.log_level, as_json=settings.json_logs)
    fill_standard_streams()
    favour_latency()
    sys.exit(uvloop.run(_main(settings)))


async def _main(settings: "ValidatorSettings") -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        await run(settings, stop)
    except ChutesError as error:
        logger.error("validator refused to start or failed: {}", error)
        return EXIT_REFUSED
    return 0


def _command() -> click.Command:
    """Return the command with one option per setting, so that none is ever forgotten."""
    options = []
    for name, field in ValidatorSettings.model_fields.items():
        flag = "--" + name.replace("_", "-")
        text = field.description or ""
        if field.annotation is bool:
            options.append(click.Option([flag], is_flag=True, default=None, help=text))
        else:
            options.append(click.Option([flag, name], type=str, default=None, help=text))
    return click.Command(
        "validator",
        params=list(options),
        callback=main,
        help=main.__doc__,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )


if __name__ == "__main__":
    _command()()
