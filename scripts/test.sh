#!/usr/bin/env bash
# Installs and runs every check: lint, types, import contracts, tests. Extra arguments go to pytest.
# Where no Docker engine answers, tests marked `docker` are skipped and say so (scripts/ci_engine.sh
# starts one for you).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/setup.sh dev
bin=.venv/bin
step() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
tests() { "$bin/python" -m pytest "$@"; }

step "format and lint (ruff)"
"$bin/ruff" format --check .
"$bin/ruff" check .
step "types (mypy, strict)"
"$bin/mypy"
step "import contracts"
"$bin/lint-imports"
step "unit, property, architecture"
tests -n 2 tests/unit tests/property tests/architecture "$@"
step "protocol, over real sockets"
tests -n 2 tests/protocol "$@"
step "end to end, with real processes, containers and chain"
tests -rs --durations=10 tests/e2e tests/docker tests/gpu "$@"
