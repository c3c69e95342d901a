#!/usr/bin/env bash
# Installs this checkout into .venv and fetches the chain's metadata; does nothing where that is done.
# Usage: scripts/setup.sh EXTRAS      e.g. scripts/setup.sh validator,miner,devnet
# Everything it writes lies inside the checkout (.venv, .cache). Needs no root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
extras="${1:?usage: scripts/setup.sh EXTRAS}"
export PIP_CACHE_DIR="$PWD/.cache/pip" PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf '\033[2m[setup]\033[0m %s\n' "$*" >&2; }

# A Python can be used when it is 3.10 to 3.14 and can really make a venv with pip in it.
usable() {
  command -v "$1" >/dev/null 2>&1 &&
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null &&
    "$1" -c 'import ensurepip, venv' 2>/dev/null
}

if ! usable .venv/bin/python || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
  chosen=""
  for candidate in python3 python3.12 python3.13 python3.11 python3.14 python3.10; do
    if usable "$candidate"; then chosen="$candidate"; break; fi
  done
  if [ -z "$chosen" ]; then
    echo "No Python 3.10-3.14 that can make a virtual environment was found." >&2
    echo "Run this, then try again:  sudo apt-get install -y python3-venv" >&2
    exit 2
  fi
  say "making .venv with $("$chosen" --version 2>&1)"
  "$chosen" -m venv --clear .venv
fi

stamp=".venv/.installed-${extras//,/-}"
wanted="$(cat setup.py pyproject.toml | cksum)"
if [ "$(cat "$stamp" 2>/dev/null || true)" != "$wanted" ]; then
  say "installing with extras: $extras (a few minutes the first time)"
  .venv/bin/python -m pip install --quiet --upgrade pip
  .venv/bin/python -m pip install --quiet --editable ".[$extras]"
  printf '%s' "$wanted" >"$stamp"
fi

case ",$extras," in
  *,devnet,* | *,dev,*) .venv/bin/python scripts/fetch_metadata.py >&2 ;;
esac
say "ready"
