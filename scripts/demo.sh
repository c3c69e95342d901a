#!/usr/bin/env bash
# The whole subnet on this machine: chain, validator, two miners, a user, two chutes, weights.
# Usage: scripts/demo.sh [--json FILE] [--keep] [--runtime process]     (--help says more)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/setup.sh validator,miner,devnet
exec .venv/bin/python scripts/demo.py "$@"
