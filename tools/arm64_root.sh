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

options() {  # NAME ARCHITECTURE: options that keep apt away from this system's own lists
  mkdir -p "$work/$1/lists/partial" "$work/$1/archives/partial"
  : > "$work/$1/status"
  echo "-o APT::Architecture=$2 -o APT::Architectures=$2 -o Dir::State::status=$work/$1/status \
    -o Dir::State::lists=$work/$1/lists -o Dir::Cache=$work/$1 -o Dir::Cache::archives=$work/$1/archives \
    -o Dir::Etc::sourcelist=$work/$1/sources.list -o Dir::Etc::sourceparts=- -o APT::Install-Recommends=false \
    -o APT::Sandbox::User=root -o Debug::NoLocking=1"
}

echo "arm64_root.sh: fetching QEMU" >&2
apt=$(options qemu amd64)
echo "deb [signed-by=$keyring] $mirror bookworm-backports main" > "$work/qemu/sources.list"
apt-get $apt update -qq
(cd "$work/qemu" && apt-get $apt download -qq qemu-user/bookworm-backports)
dpkg-deb --fsys-tarfile "$work"/qemu/qemu-user_*.deb | tar -x -C "$work" ./usr/bin/qemu-aarch64

echo "arm64_root.sh: fetching Python for arm64" >&2
apt=$(options root arm64)
echo "deb [signed-by=$keyring] $mirror bookworm main" > "$work/root/sources.list"
apt-get $apt update -qq
apt-get $apt install -y -qq --download-only python3.11-minimal libpython3.11-stdlib libstdc++6 >/dev/null
root=$folder/root.new
rm -rf "$root"
mkdir -p "$root"/usr/{bin,lib,sbin} "$root"/{tmp,etc,proc,dev,sys,app}
for name in bin lib sbin; do ln -sfn "usr/$name" "$root/$name"; done
for package in "$work"/root/archives/*.deb; do
  case ${package##*/} in perl*|dpkg_*|tar_*|libperl*|libdb5*|libselinux*|libpcre*|media-types*) continue;; esac
  dpkg-deb --fsys-tarfile "$package" | tar -x -C "$root" --keep-directory-symlink \
    --exclude='./usr/share/*' --exclude='./var/*' -f -
done
ln -sf python3.11 "$root/usr/bin/python3"
rm -rf "$folder/root" && mv "$root" "$folder/root"
mv "$work/usr/bin/qemu-aarch64" "$folder/qemu"
