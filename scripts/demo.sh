#!/usr/bin/env bash
# The whole subnet on this machine: chain, validator, two miners, a user, two chutes, weights.
# Usage: scripts/demo.sh [--json FILE] [--keep] [--runtime docker|process]  (--help says more)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/setup.sh validator,miner,devnet
# Everything that libraries cache or put aside stays inside the checkout.
export BITTENSOR_RUNTIME_CACHE_DIR="$PWD/.cache/chain" PIP_CACHE_DIR="$PWD/.cache/pip"
export TMPDIR="$PWD/.cache/tmp"
mkdir -p "$TMPDIR"
exec .venv/bin/python scripts/demo.py "$@"
