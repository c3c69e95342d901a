"""Named migrations of the store, applied in order when it opens (sqlite-utils keeps the list).

Invariant: a migration that has been released is never edited; a change of the schema is a new one.
Money tables refuse UPDATE and DELETE by trigger: the ledger is append-only below the code, too.
Times are Unix seconds (`_s`) or microseconds (`_us`); amounts are integers of rao.
"""

from sqlite_utils import Database, Migrations

migrations = Migrations("chutes-validator")

_PEOPLE = """
CREATE TABLE accounts (
  number INTEGER PRIMARY KEY, user_id TEXT NOT NULL UNIQUE, username TEXT NOT NULL UNIQUE,
  hotkey_ss58 TEXT NOT NULL UNIQUE, coldkey_ss58 TEXT NOT NULL,
  payment_address TEXT NOT NULL UNIQUE, deposit_address TEXT NOT NULL UNIQUE,
  fingerprint_sha256 TEXT NOT NULL, created_at_s INTEGER NOT NULL, roles TEXT NOT NULL
) STRICT;
CREATE TABLE api_keys (
  key_id TEXT PRIMARY KEY, user_id TEXT NOT NULL REFERENCES accounts(user_id),
  name TEXT NOT NULL, secret_sha256 TEXT NOT NULL UNIQUE, admin INTEGER NOT NULL,
  scopes TEXT NOT NULL, created_at_s INTEGER NOT NULL, last_used_at_s INTEGER, revoked_at_s INTEGER
) STRICT;
CREATE INDEX api_keys_by_user ON api_keys(user_id);
"""

_CATALOG = """
CREATE TABLE images (
  image_id TEXT PRIMARY KEY, user_id TEXT NOT NULL REFERENCES accounts(user_id),
  username TEXT NOT NULL, name TEXT NOT NULL, tag TEXT NOT NULL, readme TEXT NOT NULL,
  public INTEGER NOT NULL, dockerfile TEXT NOT NULL, bundle_sha256 TEXT NOT NULL,
  bundle_bytes INTEGER NOT NULL, state TEXT NOT NULL, error TEXT NOT NULL,
  created_at_s INTEGER NOT NULL, build_started_at_s INTEGER, build_completed_at_s INTEGER,
  UNIQUE (username, name, tag)
) STRICT;
CREATE TABLE image_logs (
  image_id TEXT NOT NULL REFERENCES images(image_id) ON DELETE CASCADE, line INTEGER NOT NULL,
  log_type TEXT NOT NULL, text TEXT NOT NULL, PRIMARY KEY (image_id, line)
) STRICT, WITHOUT ROWID;
CREATE TABLE chutes (
  chute_id TEXT PRIMARY KEY, version TEXT NOT NULL,
  user_id TEXT NOT NULL REFERENCES accounts(user_id), username TEXT NOT NULL, name TEXT NOT NULL,
  slug TEXT NOT NULL, tagline TEXT NOT NULL, readme TEXT NOT NULL, public INTEGER NOT NULL,
  standard_template TEXT, image_id TEXT NOT NULL, filename TEXT NOT NULL, ref_str TEXT NOT NULL,
  code TEXT NOT NULL, selector TEXT NOT NULL, cords TEXT NOT NULL, concurrency INTEGER NOT NULL,
  max_instances INTEGER NOT NULL, scaling_threshold_percent INTEGER NOT NULL,
  shutdown_after_s INTEGER NOT NULL, created_at_s INTEGER NOT NULL, updated_at_s INTEGER NOT NULL,
  deleted_at_s INTEGER
) STRICT;
CREATE UNIQUE INDEX live_slugs ON chutes(slug) WHERE deleted_at_s IS NULL;
CREATE INDEX chutes_by_user ON chutes(user_id);
CREATE TABLE chute_versions (
  chute_id TEXT NOT NULL, version TEXT NOT NULL, image_id TEXT NOT NULL, filename TEXT NOT NULL,
  ref_str TEXT NOT NULL, code TEXT NOT NULL, created_at_s INTEGER NOT NULL,
  PRIMARY KEY (chute_id, version)
) STRICT;
CREATE TABLE chute_shares (
  chute_id TEXT NOT NULL, user_id TEXT NOT NULL, PRIMARY KEY (chute_id, user_id)
) STRICT, WITHOUT ROWID;
"""

_LAUNCHES = """
CREATE TABLE launches (
  launch_id TEXT PRIMARY KEY, chute_id TEXT NOT NULL, version TEXT NOT NULL,
  image_id TEXT NOT NULL, miner_hotkey TEXT NOT NULL, miner_coldkey TEXT NOT NULL,
  registered_at_block INTEGER NOT NULL, node_id TEXT NOT NULL, gpu_uuids TEXT NOT NULL,
  gpu_class TEXT NOT NULL, relay_host TEXT NOT NULL, relay_port INTEGER NOT NULL,
  profile TEXT NOT NULL, stand_in INTEGER NOT NULL, requested_at_s INTEGER NOT NULL,
  deadline_s INTEGER NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL, detail TEXT NOT NULL,
  instance_public_key TEXT NOT NULL, proof_id TEXT NOT NULL, active_at_s INTEGER,
  gone_at_s INTEGER, lease_until_s INTEGER NOT NULL,
  sealed_private_key BLOB NOT NULL, sealed_ticket BLOB NOT NULL, sealed_root BLOB
) STRICT;
CREATE INDEX launches_open ON launches(chute_id) WHERE state <> 'gone';
CREATE INDEX launches_by_miner ON launches(miner_hotkey, gone_at_s);
CREATE INDEX launches_active ON launches(gone_at_s, active_at_s) WHERE active_at_s IS NOT NULL;
CREATE TABLE launch_gpus (
  miner_hotkey TEXT NOT NULL, gpu_uuid TEXT NOT NULL, launch_id TEXT NOT NULL,
  PRIMARY KEY (miner_hotkey, gpu_uuid)
) STRICT, WITHOUT ROWID;
CREATE INDEX launch_gpus_by_launch ON launch_gpus(launch_id);
CREATE TABLE proofs (
  proof_id TEXT PRIMARY KEY, launch_id TEXT NOT NULL, miner_hotkey TEXT NOT NULL,
  at_s INTEGER NOT NULL, accepted INTEGER NOT NULL, test INTEGER NOT NULL, record TEXT NOT NULL
) STRICT;
CREATE INDEX proofs_by_launch ON proofs(launch_id);
CREATE INDEX proofs_by_miner ON proofs(miner_hotkey, at_s);
CREATE TABLE leases (
  miner_hotkey TEXT NOT NULL, gpu_uuid TEXT NOT NULL, validator_hotkey TEXT NOT NULL,
  from_block INTEGER NOT NULL, to_block INTEGER NOT NULL, signature TEXT NOT NULL,
  PRIMARY KEY (miner_hotkey, gpu_uuid, validator_hotkey, from_block, to_block)
) STRICT, WITHOUT ROWID;
CREATE INDEX leases_by_end ON leases(to_block);
"""

_MONEY = """
CREATE TABLE invocations (
  worker TEXT NOT NULL, sequence INTEGER NOT NULL, invocation_id TEXT NOT NULL,
  user_id TEXT NOT NULL, key_id TEXT NOT NULL, chute_id TEXT NOT NULL, launch_id TEXT NOT NULL,
  rate_id TEXT NOT NULL, rao_per_hour INTEGER NOT NULL, hold_rao INTEGER NOT NULL,
  free INTEGER NOT NULL, started_at_us INTEGER NOT NULL, usage_us INTEGER NOT NULL,
  bytes_in INTEGER NOT NULL, bytes_out INTEGER NOT NULL, attempts INTEGER NOT NULL,
  status INTEGER NOT NULL, outcome TEXT NOT NULL, PRIMARY KEY (worker, sequence)
) STRICT, WITHOUT ROWID;
CREATE INDEX invocations_by_time ON invocations(started_at_us);
CREATE INDEX invocations_by_id ON invocations(invocation_id);
CREATE INDEX invocations_by_chute ON invocations(chute_id);
CREATE TABLE drained (worker TEXT PRIMARY KEY, sequence INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE entries (
  entry_id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, at_s INTEGER NOT NULL
) STRICT;
CREATE TABLE postings (
  entry_id INTEGER NOT NULL REFERENCES entries(entry_id), position INTEGER NOT NULL,
  account TEXT NOT NULL, rao INTEGER NOT NULL, PRIMARY KEY (entry_id, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX postings_by_account ON postings(account, entry_id);
CREATE TABLE balances (account TEXT PRIMARY KEY, rao INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TRIGGER entries_stay BEFORE UPDATE ON entries
  BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER entries_remain BEFORE DELETE ON entries
  BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER postings_stay BEFORE UPDATE ON postings
  BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER postings_remain BEFORE DELETE ON postings
  BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER balances_follow AFTER INSERT ON postings BEGIN
  INSERT INTO balances(account, rao) VALUES (NEW.account, NEW.rao)
  ON CONFLICT(account) DO UPDATE SET rao = rao + excluded.rao;
END;
"""

_PLAIN = """
CREATE TABLE nonces (
  hotkey_ss58 TEXT NOT NULL, nonce TEXT NOT NULL, expires_s INTEGER NOT NULL,
  PRIMARY KEY (hotkey_ss58, nonce)
) STRICT, WITHOUT ROWID;
CREATE INDEX nonces_by_expiry ON nonces(expires_s);
CREATE TABLE cursors (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE epochs (
  epoch INTEGER PRIMARY KEY, intended_at_s INTEGER, weights TEXT NOT NULL,
  extrinsic_hash TEXT NOT NULL, block_number INTEGER, block_hash TEXT NOT NULL,
  error TEXT NOT NULL, evidence TEXT
) STRICT;
"""


_CHAIN_MONEY = """
CREATE TABLE outbox (
  position INTEGER PRIMARY KEY, extrinsic_hash TEXT NOT NULL UNIQUE, intent_id TEXT NOT NULL,
  purpose TEXT NOT NULL, amount_rao INTEGER NOT NULL, key_ss58 TEXT NOT NULL,
  nonce INTEGER NOT NULL, signed BLOB NOT NULL, era_from INTEGER NOT NULL,
  era_to INTEGER NOT NULL, created_at_s INTEGER NOT NULL, state TEXT NOT NULL,
  block_number INTEGER, block_hash TEXT NOT NULL, fee_rao INTEGER NOT NULL, error TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX outbox_one_in_flight ON outbox(key_ss58) WHERE state = 'signed';
CREATE UNIQUE INDEX outbox_once ON outbox(intent_id) WHERE state IN ('signed', 'finalized');
CREATE INDEX outbox_by_key ON outbox(key_ss58, nonce);
CREATE INDEX outbox_by_time ON outbox(created_at_s) WHERE amount_rao > 0;
CREATE TRIGGER outbox_closed_stays BEFORE UPDATE ON outbox WHEN OLD.state <> 'signed'
  BEGIN SELECT RAISE(ABORT, 'a closed extrinsic never changes'); END;
CREATE TRIGGER outbox_remains BEFORE DELETE ON outbox
  BEGIN SELECT RAISE(ABORT, 'the outbox is append-only'); END;
CREATE TABLE deposits (
  deposit_id TEXT PRIMARY KEY, user_id TEXT NOT NULL REFERENCES accounts(user_id),
  rao INTEGER NOT NULL, source_ss58 TEXT NOT NULL, block_number INTEGER NOT NULL,
  block_hash TEXT NOT NULL, at_s INTEGER NOT NULL, unlocks_at_s INTEGER NOT NULL,
  state TEXT NOT NULL, refund_id TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX deposits_by_user ON deposits(user_id, at_s);
CREATE TRIGGER deposits_refunded_stay BEFORE UPDATE ON deposits WHEN OLD.state = 'refunded'
  BEGIN SELECT RAISE(ABORT, 'a refunded deposit never changes'); END;
CREATE TRIGGER deposits_remain BEFORE DELETE ON deposits
  BEGIN SELECT RAISE(ABORT, 'deposits are append-only'); END;
CREATE TABLE refunds (
  refund_id TEXT PRIMARY KEY, user_id TEXT NOT NULL REFERENCES accounts(user_id),
  destination_ss58 TEXT NOT NULL, amount_rao INTEGER NOT NULL, state TEXT NOT NULL,
  requested_at_s INTEGER NOT NULL, updated_at_s INTEGER NOT NULL, extrinsic_hash TEXT NOT NULL,
  paid_rao INTEGER NOT NULL, fee_rao INTEGER NOT NULL, block_number INTEGER, reason TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX refunds_by_user ON refunds(user_id, requested_at_s);
CREATE INDEX refunds_open ON refunds(state) WHERE state IN ('requested', 'submitted');
CREATE TRIGGER refunds_end BEFORE UPDATE ON refunds WHEN OLD.state IN ('finalized', 'failed')
  BEGIN SELECT RAISE(ABORT, 'an ended refund never changes'); END;
"""

_RIGHTS = """
ALTER TABLE accounts ADD COLUMN coldkey_proven TEXT NOT NULL DEFAULT '';
CREATE TABLE role_grants (
  user_id TEXT NOT NULL REFERENCES accounts(user_id), source TEXT NOT NULL, role TEXT NOT NULL,
  PRIMARY KEY (user_id, source, role)
) STRICT, WITHOUT ROWID;
INSERT INTO role_grants(user_id, source, role)
  SELECT a.user_id, 'operator', r.value FROM accounts a, json_each(a.roles) r;
CREATE TABLE links (
  hotkey_ss58 TEXT PRIMARY KEY, user_id TEXT NOT NULL REFERENCES accounts(user_id),
  kind TEXT NOT NULL, linked_at_s INTEGER NOT NULL, valid INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX links_by_user ON links(user_id);
CREATE TABLE used_signatures (
  sha256 TEXT PRIMARY KEY, at_s INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE notices (
  user_id TEXT PRIMARY KEY REFERENCES accounts(user_id), at_s INTEGER NOT NULL,
  drains_at_s INTEGER NOT NULL, reason TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""

_EXTRAS = """
CREATE TABLE secrets (
  secret_id TEXT PRIMARY KEY, user_id TEXT NOT NULL REFERENCES accounts(user_id),
  chute_id TEXT NOT NULL, purpose TEXT NOT NULL, key TEXT NOT NULL,
  created_at_s INTEGER NOT NULL, sealed_value BLOB NOT NULL, UNIQUE (chute_id, key)
) STRICT;
CREATE INDEX secrets_by_user ON secrets(user_id);
CREATE TABLE reports (
  invocation_id TEXT PRIMARY KEY, user_id TEXT NOT NULL, chute_id TEXT NOT NULL,
  launch_id TEXT NOT NULL, reason TEXT NOT NULL, at_s INTEGER NOT NULL
) STRICT;
CREATE INDEX reports_by_chute ON reports(chute_id);
CREATE TABLE logos (
  logo_id TEXT PRIMARY KEY, user_id TEXT NOT NULL REFERENCES accounts(user_id),
  sha256 TEXT NOT NULL, content_type TEXT NOT NULL, created_at_s INTEGER NOT NULL
) STRICT;
CREATE INDEX logos_by_user ON logos(user_id);
CREATE TABLE logo_uses (object_id TEXT PRIMARY KEY, logo_id TEXT NOT NULL) STRICT, WITHOUT ROWID;
"""

_GPUS = """
ALTER TABLE launches ADD COLUMN challenged TEXT NOT NULL DEFAULT '[]';
CREATE TABLE gpu_admissions (
  miner_hotkey TEXT NOT NULL, gpu_uuid TEXT NOT NULL, gpu_class TEXT NOT NULL,
  counts_as TEXT NOT NULL, proof_id TEXT NOT NULL, profile TEXT NOT NULL, at_s INTEGER NOT NULL,
  proven_at_s INTEGER NOT NULL, PRIMARY KEY (miner_hotkey, gpu_uuid)
) STRICT, WITHOUT ROWID;
CREATE TABLE gpu_sightings (
  gpu_key TEXT NOT NULL, miner_hotkey TEXT NOT NULL, gpu_uuid TEXT NOT NULL, at_s INTEGER NOT NULL,
  PRIMARY KEY (gpu_key, miner_hotkey)
) STRICT, WITHOUT ROWID;
CREATE TABLE gpu_contests (
  gpu_key TEXT NOT NULL, miner_hotkey TEXT NOT NULL, gpu_uuid TEXT NOT NULL, at_s INTEGER NOT NULL,
  PRIMARY KEY (gpu_key, miner_hotkey)
) STRICT, WITHOUT ROWID;
CREATE INDEX gpu_contests_by_miner ON gpu_contests(miner_hotkey);
"""


@migrations(name="0001-accounts-and-keys")
def _people(db: Database) -> None:
    _create(db, _PEOPLE)


_JOBS = """
CREATE TABLE jobs (
  job_id TEXT PRIMARY KEY, user_id TEXT NOT NULL REFERENCES accounts(user_id),
  key_id TEXT NOT NULL, chute_id TEXT NOT NULL, name TEXT NOT NULL, arguments TEXT NOT NULL,
  limit_s INTEGER NOT NULL, upload INTEGER NOT NULL, ports TEXT NOT NULL, rate_id TEXT NOT NULL,
  rao_per_hour INTEGER NOT NULL, hold_rao INTEGER NOT NULL,
  created_at_s INTEGER NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL, detail TEXT NOT NULL,
  version TEXT NOT NULL, launch_id TEXT NOT NULL, cancel_asked INTEGER NOT NULL,
  claimed_at_us INTEGER NOT NULL, started_at_us INTEGER NOT NULL, seen_at_us INTEGER NOT NULL,
  ended_at_us INTEGER NOT NULL, usage_us INTEGER NOT NULL, charge_rao INTEGER NOT NULL,
  outcome TEXT NOT NULL, result TEXT NOT NULL, announced TEXT NOT NULL, files TEXT NOT NULL,
  stored_bytes INTEGER NOT NULL
) STRICT;
CREATE INDEX jobs_by_user ON jobs(user_id, created_at_s);
CREATE INDEX jobs_by_chute ON jobs(chute_id, state);
CREATE INDEX jobs_by_end ON jobs(state, ended_at_us);
CREATE UNIQUE INDEX jobs_by_launch ON jobs(launch_id) WHERE launch_id <> '';
CREATE TABLE job_files (
  job_id TEXT NOT NULL, sha256 TEXT NOT NULL, PRIMARY KEY (job_id, sha256)
) STRICT, WITHOUT ROWID;
CREATE INDEX job_files_by_hash ON job_files(sha256);
"""


@migrations(name="0002-images-and-chutes")
def _catalog(db: Database) -> None:
    _create(db, _CATALOG)


@migrations(name="0003-launches-proofs-leases")
def _launches(db: Database) -> None:
    _create(db, _LAUNCHES)


@migrations(name="0004-invocations-and-ledger")
def _money(db: Database) -> None:
    _create(db, _MONEY)


@migrations(name="0005-nonces-cursors-epochs")
def _plain(db: Database) -> None:
    _create(db, _PLAIN)


@migrations(name="0006-chute-egress")
def _egress(db: Database) -> None:
    db.execute("ALTER TABLE chutes ADD COLUMN allow_external_egress INTEGER NOT NULL DEFAULT 0")


@migrations(name="0006-outbox-deposits-refunds")
def _chain_money(db: Database) -> None:
    _create(db, _CHAIN_MONEY)


@migrations(name="0007-roles-links-proofs")
def _rights(db: Database) -> None:
    _create(db, _RIGHTS)


@migrations(name="0007-secrets-reports-logos")
def _extras(db: Database) -> None:
    _create(db, _EXTRAS)


@migrations(name="0008-image-archives")
def _archives(db: Database) -> None:
    for column in ("image_digest TEXT", "archive_sha256 TEXT", "archive_bytes INTEGER"):
        default = "0" if column.endswith("INTEGER") else "''"
        db.execute(f"ALTER TABLE images ADD COLUMN {column} NOT NULL DEFAULT {default}")


def _create(db: Database, script: str) -> None:
    """Run statement by statement: `executescript` would commit the migration's transaction."""
    statement = ""
    for line in script.strip().splitlines():
        statement += line + "\n"
        if _complete(statement):
            db.execute(statement)
            statement = ""


def _complete(statement: str) -> bool:
    text = statement.rstrip()
    if text.startswith("CREATE TRIGGER"):
        return text.endswith("END;")
    return text.endswith(";")


@migrations(name="0020-gpu-admissions")
def _gpus(db: Database) -> None:
    _create(db, _GPUS)


@migrations(name="0030-image-errors")
def _image_errors(db: Database) -> None:
    for column in ("error_code", "error_hint"):
        db.execute(f"ALTER TABLE images ADD COLUMN {column} TEXT NOT NULL DEFAULT ''")


@migrations(name="0040-cursor-hashes")
def _cursor_hashes(db: Database) -> None:
    db.execute("ALTER TABLE cursors ADD COLUMN hash TEXT NOT NULL DEFAULT ''")


@migrations(name="0050-key-limits")
def _key_limits(db: Database) -> None:
    for column in ("expires_at_s", "budget_rao", "calls_per_minute", "spent_rao"):
        kind = "INTEGER NOT NULL DEFAULT 0" if column == "spent_rao" else "INTEGER"
        db.execute(f"ALTER TABLE api_keys ADD COLUMN {column} {kind}")


@migrations(name="0051-version-cords")
def _version_cords(db: Database) -> None:
    db.execute("ALTER TABLE chute_versions ADD COLUMN cords TEXT NOT NULL DEFAULT ''")
    db.execute("ALTER TABLE chute_versions ADD COLUMN concurrency INTEGER NOT NULL DEFAULT 0")


@migrations(name="0080-jobs")
def _job_runs(db: Database) -> None:
    db.execute("ALTER TABLE chutes ADD COLUMN jobs TEXT NOT NULL DEFAULT ''")
    _create(db, _JOBS)


@migrations(name="0085-image-registry")
def _image_registry(db: Database) -> None:
    db.execute("ALTER TABLE images ADD COLUMN registry_ref TEXT NOT NULL DEFAULT ''")
    db.execute(
        "CREATE TABLE registry_leftovers (registry_ref TEXT PRIMARY KEY, image_id TEXT NOT NULL)"
        " STRICT, WITHOUT ROWID"
    )


@migrations(name="0096-free-calls")
def _free_calls(db: Database) -> None:
    db.execute("CREATE INDEX invocations_free ON invocations(started_at_us) WHERE free = 1")


@migrations(name="0097-invocation-tokens")
def _tokens(db: Database) -> None:
    for column in ("prompt_tokens", "completion_tokens"):
        db.execute(f"ALTER TABLE invocations ADD COLUMN {column} INTEGER")


@migrations(name="0098-receipts")
def _receipts(db: Database) -> None:
    db.execute(
        "CREATE TABLE batches (worker TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,"
        " head TEXT NOT NULL, signature TEXT NOT NULL, PRIMARY KEY (worker, first))"
        " STRICT, WITHOUT ROWID"
    )
    db.execute("CREATE INDEX invocations_by_launch ON invocations(launch_id, started_at_us)")


@migrations(name="0110-gpu-summonses")
def _summonses(db: Database) -> None:
    db.execute(
        "CREATE TABLE gpu_summonses (miner_hotkey TEXT NOT NULL, gpu_uuid TEXT NOT NULL,"
        " launch_id TEXT NOT NULL, PRIMARY KEY (miner_hotkey, gpu_uuid)) STRICT, WITHOUT ROWID"
    )


@migrations(name="0111-leases-left-out")
def _left_out(db: Database) -> None:
    db.execute(
        "CREATE TABLE leases_left_out (miner_hotkey TEXT PRIMARY KEY, block INTEGER NOT NULL)"
        " STRICT, WITHOUT ROWID"
    )


@migrations(name="0120-accepted-nonces")
def _accepted_nonces(db: Database) -> None:
    db.execute(
        "CREATE TABLE accepted_nonces (key_ss58 TEXT NOT NULL, nonce INTEGER NOT NULL,"
        " at_s INTEGER NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (key_ss58, nonce)) STRICT,"
        " WITHOUT ROWID"
    )


@migrations(name="0121-paid-work")
def _paid_work(db: Database) -> None:
    db.execute(
        "CREATE TABLE paid_work (launch_id TEXT NOT NULL, user_id TEXT NOT NULL,"
        " hour INTEGER NOT NULL, calls INTEGER NOT NULL, usage_us INTEGER NOT NULL,"
        " charge_rao INTEGER NOT NULL, PRIMARY KEY (hour, launch_id, user_id)) STRICT,"
        " WITHOUT ROWID"
    )
    db.execute(
        "INSERT INTO paid_work SELECT launch_id, user_id, started_at_us / 3600000000 AS hour,"
        " count(*), sum(max(usage_us, 0)), sum(min(hold_rao,"
        " (max(usage_us, 0) * rao_per_hour + 3599999999) / 3600000000)) FROM invocations"
        " WHERE free = 0 AND outcome IN ('ok', 'client_gone', 'chute_error_paid')"
        " GROUP BY hour, launch_id, user_id"
    )


@migrations(name="0140-aliases")
def _aliases(db: Database) -> None:
    db.execute(
        "CREATE TABLE aliases (user_id TEXT NOT NULL REFERENCES accounts(user_id),"
        " name TEXT NOT NULL, slug TEXT NOT NULL UNIQUE, chute_ids TEXT NOT NULL,"
        " created_at_s INTEGER NOT NULL, updated_at_s INTEGER NOT NULL,"
        " PRIMARY KEY (user_id, name)) STRICT, WITHOUT ROWID"
    )
