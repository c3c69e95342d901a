#!/usr/bin/env bash
# Makes the small CPU base image that the examples name in from_base: parachutes/python:3.12.
#
# First choice: images/cpu/Dockerfile, from a public python:3.12 image. Where no registry is
# reached: a root file system unpacked from Debian's own packages. Debian 12's Python is 3.11, so the
# image made that way holds 3.11 under the same name; the last line printed says which it is. The
# CA bundle of this host is copied in, so that pip works where outbound TLS passes a private CA.
#
# Usage: images/build_cpu_base.sh [--debian] [--bare] [TAG]
#   --debian   do not try to pull
#   --bare     Python and pip only, without the packages that the runner needs
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
tag="parachutes/python:3.12" pull=yes bare=no
for argument in "$@"; do
  case "$argument" in
    --debian) pull=no ;;
    --bare) bare=yes ;;
    -*) echo "usage: $0 [--debian] [--bare] [TAG]" >&2; exit 2 ;;
    *) tag="$argument" ;;
  esac
done

say() { printf '\033[2m[image]\033[0m %s\n' "$*" >&2; }
docker_cli="${DOCKER:-docker}"
"$docker_cli" version >/dev/null || {
  echo "No Docker engine answers (DOCKER_HOST=${DOCKER_HOST:-unset}): scripts/ci_engine.sh start" >&2
  exit 2
}
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

if [ "$pull" = yes ] && timeout 60 "$docker_cli" pull --quiet python:3.12-slim >/dev/null 2>&1; then
  say "building $tag from python:3.12-slim"
  base=python:3.12-slim
else
  say "no registry answers: unpacking Debian's packages (its Python, not 3.12)"
  base="chutes-base/debian-python:latest"
  # Unpacked once in an engine; remove that image to take Debian's newer packages.
  if ! "$docker_cli" image inspect "$base" >/dev/null 2>&1; then
    "$here/cpu/debian_rootfs.sh" "$work/root"
    tar -C "$work/root" -c . | "$docker_cli" import \
      --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
      --change 'ENV LANG=C.UTF-8' --change 'CMD ["python"]' - "$base" >/dev/null
  fi
fi

target=runner
[ "$bare" = yes ] && target=bare
mkdir -p "$work/context"
cp "$here/cpu/Dockerfile" "$here/cpu/requirements.txt" "$work/context/"
if [ -f /etc/ssl/certs/ca-certificates.crt ]; then
  cp /etc/ssl/certs/ca-certificates.crt "$work/context/ca-certificates.crt"
else
  : >"$work/context/ca-certificates.crt"
fi
# The classic builder, as the validator uses it: BuildKit would try to fetch its own front end.
DOCKER_BUILDKIT=0 "$docker_cli" build --quiet --target "$target" --build-arg "BASE=$base" \
  --tag "$tag" "$work/context" >/dev/null
say "$tag: $("$docker_cli" run --rm --network none "$tag" python -c \
  'import sys; print("Python", sys.version.split()[0])')"
