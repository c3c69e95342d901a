"""The validator's memory: one SQLite file and the blobs beside it. SQL lives only in this room.

Sync and thread-safe: call it from threads, never on an event loop. Invariant: what belongs together
is written in one `transaction()`; a record is a frozen dataclass of domain/, and each repository
turns it into rows and back by its own explicit functions.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlite_utils import Database

from chutes_core.base.clock import Clock, SystemClock
from chutes_core.validator.store.accounts import AccountRows
from chutes_core.validator.store.aliases import AliasRows
from chutes_core.validator.store.blobs import Blobs
from chutes_core.validator.store.chutes import ChuteRows
from chutes_core.validator.store.connection import Connection
from chutes_core.validator.store.cursors import CursorRows
from chutes_core.validator.store.deposits import DepositRows, RefundRows
from chutes_core.validator.store.epochs import EpochRows
from chutes_core.validator.store.extras import LogoRows, ReportRows
from chutes_core.validator.store.gpus import GpuRows
from chutes_core.validator.store.images import ImageRows
from chutes_core.validator.store.invocations import InvocationRows
from chutes_core.validator.store.jobs import JobRows
from chutes_core.validator.store.keys import KeyRows
from chutes_core.validator.store.launches import LaunchRows
from chutes_core.validator.store.leases import LeaseRows
from chutes_core.validator.store.ledger import LedgerRows
from chutes_core.validator.store.migrations import migrations
from chutes_core.validator.store.nonces import NonceRows
from chutes_core.validator.store.outbox import OutboxRows
from chutes_core.validator.store.paid_work import PaidWorkRows
from chutes_core.validator.store.proofs import ProofRows
from chutes_core.validator.store.rights import LinkRows, NoticeRows, SignatureRows
from chutes_core.validator.store.secrets import SecretRows
from chutes_core.validator.store.summons import SummonsRows


class Store:
    """All repositories over one connection.

    Args:
        path: the SQLite file; its directory is made, blobs lie in ``blobs/`` beside it, files of
            jobs in ``job-files/``.
        clock: used only to prune what has expired.
    """

    def __init__(self, path: Path | str, *, clock: Clock | None = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)  # before SQLite makes it readable for everybody
        self._connection = Connection(path)
        migrations.apply(Database(self._connection.raw, execute_plugins=False))
        connection = self._connection
        self.accounts = AccountRows(connection)
        self.keys = KeyRows(connection)
        self.images = ImageRows(connection)
        self.chutes = ChuteRows(connection)
        self.aliases = AliasRows(connection)
        self.launches = LaunchRows(connection)
        self.proofs = ProofRows(connection)
        self.gpus = GpuRows(connection)
        self.summonses = SummonsRows(connection)
        self.paid_work = PaidWorkRows(connection)
        self.invocations = InvocationRows(connection, self.paid_work)
        self.ledger = LedgerRows(connection)
        self.nonces = NonceRows(connection, clock or SystemClock())
        self.leases = LeaseRows(connection)
        self.cursors = CursorRows(connection)
        self.epochs = EpochRows(connection)
        self.outbox = OutboxRows(connection)
        self.deposits = DepositRows(connection)
        self.refunds = RefundRows(connection)
        self.links = LinkRows(connection)
        self.signatures = SignatureRows(connection)
        self.notices = NoticeRows(connection)
        self.secrets = SecretRows(connection)
        self.reports = ReportRows(connection)
        self.logos = LogoRows(connection)
        self.jobs = JobRows(connection)
        self.blobs = Blobs(path.parent / "blobs")
        self.job_files = Blobs(path.parent / "job-files")

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[None]:
        """Make the block one transaction; a nested call joins the outer one.

        Args:
            durable: the commit also survives a power cut (an fsync; the outermost block asks).
        """
        with self._connection.transaction(durable=durable):
            yield

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
