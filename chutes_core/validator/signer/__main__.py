"""`python -m chutes_core.validator.signer`: pays refunds until it is stopped.

Run it as a user of its own, with the deposit treasury's secret in a file that only this user can
read. Exit codes: 0 stopped by a signal, 2 refused to start (the log says why).
"""

import os
import signal
import stat
import sys
import threading
from pathlib import Path

from bittensor_core import Keypair
from loguru import logger
from pydantic import ValidationError

from chutes_core.base.clock import SystemClock
from chutes_core.base.errors import ChutesError, Forbidden, NotFound
from chutes_core.base.logs import configure_logs
from chutes_core.base.units import parse_tao
from chutes_core.chain.client import ChainClient
from chutes_core.validator.signer.service import Signer, SignerParts, child_of
from chutes_core.validator.signer.settings import SignerSettings
from chutes_core.validator.signer.spool import Spool
from chutes_core.validator.store.database import Store

EXIT_REFUSED = 2


def main() -> int:
    """Run the signer and return its exit code."""
    configure_logs()
    try:
        settings = SignerSettings.load()
        configure_logs(settings.log_level, as_json=settings.json_logs)
        return _run(settings)
    except ValidationError as error:
        for problem in error.errors():
            logger.error("setting refused: {} {}", problem["loc"], problem["msg"])
    except ChutesError as error:
        logger.error("the signer did not start: {}", error)
    return EXIT_REFUSED


def _run(settings: SignerSettings) -> int:
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    secret_uri = read_secret(settings.key_file.expanduser())
    reports = Spool(settings.spool / "reports", owner_uid=os.getuid())
    reports.prepare()
    store = Store(settings.data_dir.expanduser() / "signer.sqlite")
    with ChainClient.connect(settings.chain_url, 0) as chain:
        parts = SignerParts(
            store=store,
            chain=chain,
            outbox=chain.use_outbox(store.outbox, archive_url=settings.archive_url),
            orders=Spool(settings.spool / "orders", owner_uid=settings.validator_uid),
            reports=reports,
            clock=SystemClock(),
        )
        signer = Signer(
            parts,
            treasury_ss58=str(Keypair.create_from_uri(secret_uri).ss58_address),
            child=child_of(secret_uri),
            cap_rao=parse_tao(settings.daily_cap),
        )
        logger.info("signer started")
        while not stop.is_set():
            try:
                signer.run_once()
            except ChutesError as error:
                logger.bind(code=error.code).warning("a pass failed: {}", error)
            stop.wait(settings.poll_seconds)
    store.close()
    return 0


def read_secret(path: Path) -> str:
    """Return the treasury's secret URI from a file that is this user's alone.

    Raises:
        NotFound: ``treasury_key_missing``.
        Forbidden: ``key_file_not_private``.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        raise NotFound(
            "treasury_key_missing", f"{path} cannot be read", hint="write the secret URI there"
        ) from error
    with os.fdopen(descriptor, encoding="utf-8") as file:
        found = os.fstat(file.fileno())
        if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise Forbidden(
                "key_file_not_private", f"{path} can be read by others", hint=f"chmod 600 {path}"
            )
        return file.read().strip()


if __name__ == "__main__":
    sys.exit(main())
