"""Logging set up once, by entry points only.

Invariant: an event is one line in the past tense with its facts bound as fields, and never holds
a prompt, a key or a signature.
"""

import sys

from loguru import logger


def configure_logs(level: str = "INFO", *, as_json: bool = False) -> None:
    """Send the process's log lines to standard error, as text or as JSON lines."""
    logger.remove()
    if as_json:
        logger.add(sys.stderr, level=level, serialize=True, diagnose=False)
        return
    logger.add(
        sys.stderr,
        level=level,
        format="{time:HH:mm:ss.SSS} {level: <7} {message} {extra}",
        colorize=None,
        diagnose=False,
    )
