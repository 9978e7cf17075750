#!/usr/bin/env bash
# The file tree of a device image. Nothing of it is run and nothing is installed here, so any machine makes any
# architecture's; it needs apt-get, dpkg-deb and Debian's keyring, no root. The same packages give the same tree.
#   device_tree.sh root amd64|arm64 FOLDER    Python 3.11 and the libraries that it needs, from Debian 12's packages
#   device_tree.sh site WHEELS FOLDER         a folder of wheels, without what an interpreter does not need
# Variables: DEBIAN_MIRROR (default: apt's own for bookworm, else deb.debian.org), PYTHON (default: python3).
set -euo pipefail
die() { echo "device_tree.sh: $*" >&2; exit 2; }

packages=(python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libc6 gcc-12-base libgcc-s1 libstdc++6 libssl3 libffi8
  libexpat1 libbz2-1.0 liblzma5 zlib1g libuuid1 libcrypt1)
# the parts of Python's library that nobody imports here, or whose own libraries are left out
unused=(idlelib lib2to3 ensurepip pydoc_data turtledemo tkinter test distutils curses sqlite3 dbm)
unused_modules='_sqlite3|_curses|_curses_panel|readline|_dbm|nis|_tkinter|_test[a-z]+|_ctypes_test|_xxtestfuzz|xxlimited(_35)?'

mirror() {  # of bookworm, or (bookworm-security) of its security updates
  apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null | sed -n "s/^$1 //p" | head -1
}

root() {
  local architecture=$1 out=$2 keyring=/usr/share/keyrings/debian-archive-keyring.gpg main security
  case $architecture in amd64|arm64) ;; *) die "$architecture: known are amd64 and arm64";; esac
  for program in apt-get dpkg-deb; do
    command -v $program >/dev/null || die "missing, please install: $program (or use the image of docker/host.Dockerfile)"
  done
  [ -r $keyring ] || die "missing, please install: debian-archive-keyring"
  main=${DEBIAN_MIRROR:-$(mirror bookworm)}
  security=$(mirror bookworm-security)
  : "${main:=http://deb.debian.org/debian}" "${security:=${main%/}-security}"
  mkdir -p "$work/lists/partial" "$work/archives/partial" "$out"/usr/{bin,lib,sbin} "$out"/{tmp,etc,proc,dev,sys,app} \
    "$out"/var/lib/dpkg/status.d
  : > "$work/status"
  printf 'deb [signed-by=%s] %s %s main\n' $keyring "$main" bookworm $keyring "$security" bookworm-security \
    > "$work/sources.list"
  # apt keeps away from this system's own lists
  local apt=(apt-get -qq -o "APT::Architecture=$architecture" -o "APT::Architectures=$architecture"
    -o "Dir::State=$work" -o "Dir::State::status=$work/status" -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work"
    -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=- -o APT::Sandbox::User=root
    -o "Dir::Log=$work" -o Debug::NoLocking=1)
  "${apt[@]}" update || die "Debian's package lists cannot be fetched from $main"
  (cd "$work/archives" && "${apt[@]}" download "${packages[@]}") || die "Debian's packages cannot be fetched from $main"
  for name in bin lib sbin; do ln -sfn "usr/$name" "$out/$name"; done
  if [ "$architecture" = amd64 ]; then mkdir -p "$out/usr/lib64"; ln -sfn usr/lib64 "$out/lib64"; fi
  local package name
  for package in "$work"/archives/*.deb; do
    name=$(dpkg-deb -f "$package" Package)
    dpkg-deb --fsys-tarfile "$package" > "$work/package.tar"
    tar -x -C "$out" --keep-directory-symlink --no-same-owner --exclude='./usr/share/*' --exclude='./var/*' \
      -f "$work/package.tar"
    tar -x -C "$out" --no-same-owner --wildcards -f "$work/package.tar" './usr/share/doc/*/copyright' 2>/dev/null || true
    dpkg-deb -f "$package" > "$out/var/lib/dpkg/status.d/$name"  # where scanners look for what is inside
  done
  ln -sf python3.11 "$out/usr/bin/python3"
  local library=$out/usr/lib/python3.11
  (cd "$library" && rm -rf "${unused[@]}")
  find "$library/lib-dynload" -regextype posix-extended -regex ".*/($unused_modules)\..*" -delete
  rm -rf "$out"/usr/lib/*/gconv "$out"/usr/lib/binfmt.d "$out"/etc/*
  printf 'root:x:0:0::/:/none\nqhyvit:x:1000:1000::/tmp:/none\n' > "$out/etc/passwd"
  printf 'root:x:0:\nqhyvit:x:1000:\n' > "$out/etc/group"
  printf 'passwd: files\ngroup: files\nhosts: files dns\n' > "$out/etc/nsswitch.conf"
  chmod 1777 "$out/tmp"
}

site() {
  local wheels=$1 out=$2 wheel
  mkdir -p "$out"
  for wheel in "$wheels"/*.whl; do "${PYTHON:-python3}" -m zipfile -e "$wheel" "$out"; done
  find "$out" -type d \( -name tests -o -name include -o -name bin -o -name __pycache__ \) -prune -exec rm -rf {} +
  # a GPU's, which the interpreter never loads
  find "$out" \( -name '*.pyi' -o -name 'libLiteRtWebGpuAccelerator.so' \) -delete
}

[ $# -eq 3 ] || die "usage: device_tree.sh root ARCHITECTURE FOLDER | site WHEELS FOLDER"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
umask 022
case $1 in
  root) root "$2" "$3";;
  site) site "$2" "$3";;
  *) die "usage: device_tree.sh root ARCHITECTURE FOLDER | site WHEELS FOLDER";;
esac
