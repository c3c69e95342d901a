#!/usr/bin/env bash
# A Docker engine of one's own in a temporary folder: for CI, and for a developer without one.
#
#   eval "$(scripts/ci_engine.sh start)"    starts it and sets DOCKER_HOST; where an engine answers
#                                           already, that one is used and nothing is started
#   scripts/ci_engine.sh stop               stops what `start` started and removes its folder
#
# Needs root and Linux; installs docker.io and iptables where they lack and apt-get is there. What it
# says goes to stderr, the export line to stdout.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
note="$root/.cache/engine" # the folder of the engine that was started from this checkout

say() { printf '\033[2m[engine]\033[0m %s\n' "$*" >&2; }
answers() { command -v docker >/dev/null && timeout 10 docker version >/dev/null 2>&1; }

start() {
  if answers; then
    say "an engine answers already (${DOCKER_HOST:-the usual socket}); using it"
    [ -z "${DOCKER_HOST:-}" ] || printf 'export DOCKER_HOST=%q\n' "$DOCKER_HOST"
    return
  fi
  if [ "$(id -u)" != 0 ] || [ "$(uname -s)" != Linux ]; then
    say "no engine answers, and one can be started only as root on Linux"
    exit 3
  fi
  stop
  if ! command -v dockerd >/dev/null || ! command -v iptables >/dev/null; then
    say "installing docker.io and iptables"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >&2
    apt-get install -y -qq --no-install-recommends docker.io iptables >/dev/null
  fi
  # The path of a Unix socket has at most 107 bytes, and a checkout may lie deep: so under /tmp.
  local folder
  folder="$(TMPDIR=/tmp mktemp -d -t chutes-engine.XXXXXX)"
  mkdir -p "$root/.cache"
  printf '%s' "$folder" >"$note"
  setsid dockerd --data-root "$folder/data" --exec-root "$folder/exec" \
    --host "unix://$folder/d.sock" --pidfile "$folder/pid" \
    </dev/null >"$folder/log" 2>&1 &
  export DOCKER_HOST="unix://$folder/d.sock"
  local tries
  for tries in $(seq 1 120); do
    if answers; then
      say "started in $folder"
      printf 'export DOCKER_HOST=%q\n' "$DOCKER_HOST"
      return
    fi
    kill -0 $! 2>/dev/null || break
    sleep 0.25
  done
  say "dockerd did not start (after $tries tries); the end of its log:"
  tail -n 20 "$folder/log" >&2
  stop
  exit 3
}

stop() {
  [ -s "$note" ] || return 0
  local folder pid
  folder="$(cat "$note")"
  rm -f "$note"
  case "$folder" in /tmp/chutes-engine.*) ;; *) return 0 ;; esac
  [ -d "$folder" ] || return 0
  pid="$(cat "$folder/pid" 2>/dev/null || true)"
  # The pid may be another process's by now: it must be the dockerd of this very folder.
  if [ -n "$pid" ] && tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "$folder"; then
    kill -TERM "$pid"
    for _ in $(seq 1 120); do
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.25
    done
    kill -KILL "$pid" 2>/dev/null || true
  fi
  # What an engine that was killed left mounted would be emptied by rm.
  awk -v f="$folder/" 'index($2, f) == 1 {print $2}' /proc/mounts | sort -r |
    while read -r mounted; do umount -l "$mounted" 2>/dev/null || true; done
  rm -rf --one-file-system "$folder"
  say "stopped, $folder removed"
}

case "${1:-}" in
  start) start ;;
  stop) stop ;;
  *) echo "usage: $0 start|stop" >&2; exit 2 ;;
esac
