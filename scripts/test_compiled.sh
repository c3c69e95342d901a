#!/usr/bin/env bash
# Runs the tests of the calls' path against its compiled form (scripts/compile.py), in a copy of the
# checkout that is gone afterwards. Extra arguments go to pytest. Needs .venv (scripts/test.sh).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python="$PWD/.venv/bin/python"
copy="$(mktemp -d)"
trap 'rm -rf "$copy"' EXIT
cp -r chutes_core graval neurons scripts tests examples pyproject.toml "$copy"
cd "$copy"
"$python" scripts/compile.py || {
  [ $? -eq 3 ] && echo "skipped: this machine cannot compile (above)" && exit 0
  exit 1
}
PYTHONPATH="$copy" CHUTES_TEST_COMPILED=1 "$python" -m pytest -n 2 -m "not interpreted" \
  tests/architecture/test_compiled.py tests/unit/gateway tests/unit/wire tests/protocol/gateway \
  tests/protocol/wire tests/property/test_journal.py tests/property/test_whole_frames.py \
  tests/property/test_worker_leases.py tests/property/test_worker_rates.py \
  tests/property/test_worker_pictures.py tests/property/test_key_budget.py "$@"
