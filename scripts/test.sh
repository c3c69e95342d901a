#!/usr/bin/env bash
# Installs and runs every check: lint, types, import contracts, tests. Extra arguments go to pytest.
# Where no Docker engine answers, tests marked `docker` are skipped and say so (scripts/ci_engine.sh
# starts one for you). CHUTES_TEST_EXTRAS=dev,examples installs torch, too, for the chat example.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/setup.sh "${CHUTES_TEST_EXTRAS:-dev}"
bin=.venv/bin
step() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
failed=()
# Every part runs, whatever the ones before it said: one run names all that is wrong.
tests() { "$bin/python" -m pytest "${@:2}" || failed+=("$1"); }
check() { "${@:2}" || failed+=("$1"); }

step "format and lint (ruff)"
check format "$bin/ruff" format --check .
check lint "$bin/ruff" check .
step "types (mypy, strict)"
check types "$bin/mypy"
step "import contracts"
check contracts "$bin/lint-imports"
step "unit, property, architecture"
tests unit -n 2 tests/unit tests/property tests/architecture "$@"
step "protocol, over real sockets"
tests protocol -n 2 tests/protocol "$@"
step "the calls' path, compiled"
check compiled scripts/test_compiled.sh "$@"
step "end to end, with real processes, containers and chain"
tests end-to-end -rs --durations=10 tests/e2e tests/docker tests/gpu "$@"

if [ "${#failed[@]}" -gt 0 ]; then
  printf '\n\033[1mfailed:\033[0m %s\n' "${failed[*]}" >&2
  exit 1
fi
printf '\n\033[1mall passed\033[0m\n'
