#!/usr/bin/env bash
# Chain, validator and miner with a real GPU on this host: scripts/gpu_host_run.py explains it.
#
#   scripts/gpu_host_run.sh [WHEELS] [options of gpu_host_run.py]
#
# WHEELS: a folder of wheels to install first (a host without a package registry); the host's own
# python3 must have torch, triton and numpy. .cache/metadata.json must be there
# (scripts/fetch_metadata.py). GPU_HOST_SCRIPT names another script that takes --folder and
# --gpu-python (tests/bench/cold.py).
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
work=${GPU_HOST_WORK:-$(mktemp -d)}
site=$work/site-packages
if [ -d "${1:-}" ]; then
  python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" "$1"/*.whl
  shift
fi
export PYTHONPATH=$root:$site

# The provers' Python: the host's, with graval from this checkout and a kernel cache that lasts.
cat >"$work/graval-python" <<PROVER
#!/bin/sh
export PYTHONPATH="$root" TRITON_CACHE_DIR="$work/triton" LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-}"
exec "$(command -v python3)" "\$@"
PROVER
chmod +x "$work/graval-python"

# The command line lies beside the interpreter where the package is installed; here it is not.
command=$(python3 -c 'import sys, pathlib; print(pathlib.Path(sys.executable).with_name("chutes"))')
if [ ! -e "$command" ]; then
  printf '#!/bin/sh\nexec "%s" -c "from chutes_core.cli.main import main; main()" "$@"\n' "$(command -v python3)" >"$command"
  chmod +x "$command"
fi
exec python3 "${GPU_HOST_SCRIPT:-scripts/gpu_host_run.py}" --folder "$work/net" --gpu-python "$work/graval-python" "$@"
