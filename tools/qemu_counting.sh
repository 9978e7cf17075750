#!/usr/bin/env bash
# A QEMU that counts instructions, built from Debian's source package: its binary packages have no plugins.
# Usage: qemu_counting.sh FOLDER; afterwards FOLDER/qemu-counting, FOLDER/libinsn.so (its counting plugin) and
# FOLDER/libclock.so (tools/instruction_clock.c) are there (about 5 minutes).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "${1:?folder}"
folder=$(cd "$1" && pwd)
bash "$here/need.sh" gcc=build-essential
gcc -O2 -Wall -shared -fPIC "$here/instruction_clock.c" -o "$folder/libclock.so"
[ -x "$folder/qemu-counting" ] && [ -e "$folder/libinsn.so" ] && exit 0
bash "$here/need.sh" ninja=ninja-build pkg-config=pkg-config flex=flex bison=bison dpkg-source=dpkg-dev
pkg-config --exists glib-2.0 || apt-get install -y -qq --no-install-recommends libglib2.0-dev >/dev/null ||
  { echo "qemu_counting.sh: missing, please install: libglib2.0-dev" >&2; exit 2; }
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
mirror=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' | sed -n 's/^bookworm //p' | head -1)
[ -n "$mirror" ] || { echo "qemu_counting.sh: this is not Debian bookworm" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
mkdir -p "$work/lists/partial"
echo "deb-src [signed-by=$keyring] $mirror trixie main" > "$work/sources.list"
options="-o Dir::Etc::sourcelist=$work/sources.list -o Dir::Etc::sourceparts=- -o Dir::State::lists=$work/lists \
  -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root"
echo "qemu_counting.sh: fetching the source" >&2
apt-get $options update -qq
(cd "$work" && apt-get $options source -qq --download-only qemu)
tar -xf "$work"/qemu_*.orig.tar.xz -C "$work"
python3 -m venv "$work/meson"
"$work/meson/bin/python" -m pip install --quiet --disable-pip-version-check \
  'meson==1.8.2' pycotap distlib packaging setuptools wheel tomli
echo "qemu_counting.sh: building" >&2
cd "$work"/qemu-*/
mkdir b && cd b
PATH="$work/meson/bin:$PATH" ../configure --target-list=aarch64-linux-user --enable-plugins --disable-system \
  --disable-tools --disable-docs --disable-werror --disable-install-blobs --enable-download \
  --python="$work/meson/bin/python3" > "$work/configure.log" || { tail -20 "$work/configure.log" >&2; exit 2; }
ninja qemu-aarch64 tests/tcg/plugins/libinsn.so > "$work/build.log" || { tail -20 "$work/build.log" >&2; exit 2; }
cp tests/tcg/plugins/libinsn.so "$folder/libinsn.so"
cp qemu-aarch64 "$folder/qemu-counting"
