#!/usr/bin/env bash
# Installs and runs every check: lint, types, import contracts, tests. Extra arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/setup.sh dev
bin=.venv/bin
step() { printf '\n\033[1m== %s\033[0m\n' "$*"; }

step "format and lint (ruff)";      "$bin/ruff" format --check . && "$bin/ruff" check .
step "types (mypy, strict)";        "$bin/mypy"
step "import contracts";            "$bin/lint-imports"
step "unit, property, architecture"; "$bin/python" -m pytest -n 2 tests/unit tests/property tests/architecture "$@"
step "protocol and end to end";     "$bin/python" -m pytest tests/protocol tests/e2e tests/gpu -rs --durations=8 "$@"
