"""`python -m chutes_core.devnet`: options, then `app.run`.

Exit codes: 0 after SIGTERM or SIGINT, 2 for a missing metadata file or a wrong option.
"""

import argparse
import asyncio
import sys
from pathlib import Path

from loguru import logger
from pydantic import ValidationError

from chutes_core.base.errors import ChutesError
from chutes_core.base.logs import configure_logs
from chutes_core.devnet.app import run
from chutes_core.devnet.settings import DevnetSettings

_USAGE_ERROR = 2


def main() -> int:
    """Run the chain; return the exit code."""
    given = vars(_parser().parse_args())
    options = {
        name: value for name, value in given.items() if not (value is None or value is False)
    }
    try:
        settings = DevnetSettings.load(**options)
    except ValidationError as error:
        configure_logs()
        for problem in error.errors():
            option = "--" + "-".join(str(part) for part in problem["loc"]).replace("_", "-")
            logger.error("{}: {}", option, problem["msg"])
        return _USAGE_ERROR
    except ChutesError as error:
        configure_logs()
        logger.error(str(error))
        return _USAGE_ERROR
    configure_logs(as_json=settings.json_logs)
    try:
        asyncio.run(run(settings))
    except ChutesError as error:
        logger.error(str(error))
        return _USAGE_ERROR
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m chutes_core.devnet",
        description="A local chain that speaks Substrate JSON-RPC as Subtensor does.",
    )
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port, 0 takes a free one (default 0)")
    parser.add_argument("--block-seconds", type=float, help="block time (default 1.0)")
    parser.add_argument("--tempo", type=int, help="blocks per epoch (default 20)")
    parser.add_argument("--metadata", type=Path, help="file of scripts/fetch_metadata.py")
    parser.add_argument("--ready-file", type=Path, help="written as JSON once the chain listens")
    parser.add_argument("--validators", type=int, help="registered at genesis (default 2)")
    parser.add_argument(
        "--foreign-genesis", action="store_true", help="leave out the devnet marker (for tests)"
    )
    parser.add_argument("--state", type=Path, help="file that keeps the chain over a restart")
    parser.add_argument(
        "--dev-controls",
        action="store_true",
        help="answer dev_newBlock, dev_setStorage, dev_setTime and dev_fault (for tests)",
    )
    parser.add_argument("--json-logs", action="store_true", help="log lines as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
