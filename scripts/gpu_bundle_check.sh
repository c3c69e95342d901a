#!/usr/bin/env bash
# On a host with a GPU, and torch and Triton in its python3: builds the prover bundle, runs it where
# there is no compiler and no other Python, measures, runs tests/gpu. Nothing is downloaded.
#
#   scripts/gpu_bundle_check.sh FOLDER
#
# Writes JSON and logs to FOLDER. Every step has a time limit, all together BUDGET_S (360 s), and the
# next one runs whatever became of it; FOLDER/steps.json says how each ended (124: its time was up).
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD
out=$(mkdir -p "$1" && cd "$1" && pwd)
work=$(mktemp -d)
image=$work/image
bundle=$image/opt/graval
export PYTHONPATH=$root PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
steps=()

step() { # NAME SECONDS COMMAND...
  local name=$1 limit=$2 began=$SECONDS left=$((${BUDGET_S:-360} - SECONDS)) rc
  shift 2
  if [ "$left" -lt "$limit" ]; then limit=$((left > 1 ? left : 1)); fi
  printf '== %s\n' "$name" | tee -a "$out/log.txt"
  timeout -k 5 "$limit" "$@" >"$work/$name.out" 2>&1
  rc=$?
  tail -c 3500 "$work/$name.out" | tee -a "$out/log.txt"
  steps+=("{\"step\": \"$name\", \"rc\": $rc, \"seconds\": $((SECONDS - began))}")
  printf '%s\n' "${steps[@]}" | paste -sd, | sed 's/^/[/; s/$/]/' >"$out/steps.json"
}

# What a container with the NVIDIA runtime has: /dev, /proc, the driver's libraries, our mount.
make_image() {
  mkdir -p "$image"/{dev,proc,sys,tmp,opt/graval,usr/lib/x86_64-linux-gnu,etc}
  mount --rbind /dev "$image/dev" && mount -t proc proc "$image/proc"
  mount --rbind /sys "$image/sys"
  mount --bind "$work/bundle" "$bundle" && mount -o remount,ro,bind "$bundle"
  local folder
  for folder in ${LD_LIBRARY_PATH//:/ } /usr/local/nvidia/lib64 /usr/lib/x86_64-linux-gnu \
    $(ldconfig -p | awk '/libcuda\.so\.1/ {print $NF}' | xargs -r -n1 dirname); do
    cp -n "$folder"/libcuda.so* "$folder"/libnvidia-ml.so* "$folder"/libnvidia-ptxjit* \
      "$folder"/libnvidia-nvvm* "$folder"/libnvidia-gpucomp* \
      "$image/usr/lib/x86_64-linux-gnu/" 2>/dev/null
  done
  ls "$image/usr/lib/x86_64-linux-gnu"
}

inside() { # the bundle in that image: no shell, no libc, no compiler, an empty environment
  env -i LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-}" CC=/bin/false \
    "$(command -v chroot)" "$image" /opt/graval/bin/python3 "$@"
}

bare() { # the bundle on this host with an empty environment
  env -i LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-}" CC=/bin/false "$work/bundle/bin/python3" "$@"
}
export -f make_image inside bare
export work image bundle

step host 20 bash -c 'nvidia-smi -q | grep -iE "driver version|product name|current  |power limit" | head -20; uname -r; python3 -VV; which cc gcc file ldconfig; ldd --version | head -1'
step build 150 python3 scripts/build_prover_bundle.py --out "$work/bundle"
cp "$work/bundle/manifest.json" "$out/bundle-manifest.json" 2>/dev/null
step image 30 bash -c make_image
step selftest_in_image 60 bash -c 'inside -m graval selftest --json'
run=inside
if ! grep -q '"ok": true' "$work/selftest_in_image.out"; then
  run=bare
  step selftest_bare 60 bash -c 'bare -m graval selftest --json'
fi
echo "benches run: $run" | tee -a "$out/log.txt"
export run
step bench_light 80 bash -c '$run -m graval bench --backend triton --profiles light --as-sent --challenges 20 --repeat 17 --json >"$work/light.json"'
cp "$work/light.json" "$out/bundle-light.json" 2>/dev/null
step bench_periodic 60 bash -c '$run -m graval bench --backend triton --profiles periodic --challenges 12 --json >"$work/periodic.json"'
cp "$work/periodic.json" "$out/bundle-periodic.json" 2>/dev/null
step tests_gpu 100 python3 -m pytest tests/gpu -q -rs -c /dev/null --rootdir="$root" --noconftest \
  --import-mode=importlib -p no:cacheprovider --confcutdir="$root/tests/gpu"
step rounds 80 python3 tests/bench/graval_rounds.py --backend triton --rounds 3 --out "$out/rounds.json"
step verifier 30 taskset -c 0,1 python3 tests/bench/graval_verifier.py --threads 2 --rounds 40 \
  --out "$out/verifier.json"
step cheaters 60 python3 tests/bench/graval_cheaters.py --missing 0,5,7 --kinds recomputing \
  --challenges 3 --out "$out/cheaters.json"
umount -l "$bundle" "$image/proc" "$image/sys" "$image/dev" 2>/dev/null
rm -rf "$work/bundle"
cat "$out/steps.json"
