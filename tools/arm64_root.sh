#!/usr/bin/env bash
# An arm64 Debian root with Python, and a QEMU that runs it, from Debian's packages; no arm64 code runs, nothing is
# installed here. Usage: arm64_root.sh FOLDER; afterwards FOLDER/qemu and FOLDER/root are there.
set -euo pipefail
mkdir -p "${1:?folder}"
folder=$(cd "$1" && pwd)
[ -x "$folder/qemu" ] && [ -e "$folder/root/usr/bin/python3" ] && exit 0
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
apt-get update -qq
mirror=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' | sed -n 's/^bookworm //p' | head -1)
[ -n "$mirror" ] || { echo "arm64_root.sh: this is not Debian bookworm" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"

echo "arm64_root.sh: fetching QEMU" >&2
mkdir -p "$work/lists/partial" "$work/archives/partial"
: > "$work/status"
echo "deb [signed-by=$keyring] $mirror bookworm-backports main" > "$work/sources.list"
# options that keep apt away from this system's own lists
apt="-qq -o APT::Architecture=amd64 -o APT::Architectures=amd64 -o Dir::State::status=$work/status \
  -o Dir::State::lists=$work/lists -o Dir::Cache=$work -o Dir::Cache::archives=$work/archives \
  -o Dir::Etc::sourcelist=$work/sources.list -o Dir::Etc::sourceparts=- -o APT::Sandbox::User=root \
  -o Debug::NoLocking=1"
apt-get $apt update
(cd "$work" && apt-get $apt download qemu-user/bookworm-backports)
dpkg-deb --fsys-tarfile "$work"/qemu-user_*.deb | tar -x -C "$work" ./usr/bin/qemu-aarch64

echo "arm64_root.sh: fetching Python for arm64" >&2
rm -rf "$folder/root.new"
bash "$(dirname "$0")/../pipeline/qhyvit/device_tree.sh" root arm64 "$folder/root.new"
rm -rf "$folder/root" && mv "$folder/root.new" "$folder/root"
mv "$work/usr/bin/qemu-aarch64" "$folder/qemu"
