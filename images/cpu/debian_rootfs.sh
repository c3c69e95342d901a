#!/usr/bin/env bash
# Unpacks Debian's python3 and pip, with what they need and no more, into a folder.
# Usage: images/cpu/debian_rootfs.sh FOLDER
# Package scripts are not run (debootstrap would, in 20 times the time): what they would have set up
# and Python needs is done below. Debian 12 gives Python 3.11.
set -euo pipefail
root="${1:?usage: debian_rootfs.sh FOLDER}"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
wanted=(python3 python3-pip python3-venv base-files base-passwd coreutils dash bash sed grep tar gzip
  findutils libc-bin libstdc++6 ca-certificates)

# pip's recommended compilers stay out; apt's own resolver picks one of each alternative.
mapfile -t packages < <(
  apt-get -s -o Dir::State::status=/dev/null install --no-install-recommends "${wanted[@]}" |
    sed -n 's/^Inst \([^ ]*\) .*/\1/p' | sort -u
)
[ "${#packages[@]}" -gt 20 ] || { echo "apt knows no packages: run apt-get update first" >&2; exit 2; }
chmod 755 "$work"
(cd "$work" && apt-get -q=2 download "${packages[@]}" 2>/dev/null)

mkdir -p "$root"/usr/{bin,sbin,lib,lib64}
for name in bin sbin lib lib64; do ln -sfn "usr/$name" "$root/$name"; done
for deb in "$work"/*.deb; do
  dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$root" --keep-directory-symlink
done
mkdir -p "$root"/{tmp,proc,sys,dev,root,run,var/tmp,etc/ssl/certs,usr/local/bin}
chmod 1777 "$root/tmp" "$root/var/tmp"
ln -sf python3 "$root/usr/bin/python"
[ -e "$root/usr/bin/sh" ] || ln -sf dash "$root/usr/bin/sh"
[ -e "$root/etc/passwd" ] || printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n' >"$root/etc/passwd"
[ -e "$root/etc/group" ] || printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
# This root belongs to nobody's package manager: pip may install into it.
rm -f "$root"/usr/lib/python3*/EXTERNALLY-MANAGED
rm -rf "$root"/usr/share/{doc,man,locale,info,lintian} "$root"/var/cache/apt "$root"/usr/share/perl*
ldconfig -r "$root"
