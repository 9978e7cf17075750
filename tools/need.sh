#!/usr/bin/env bash
# Makes sure that programs are there, from Debian's packages where this can install them: need.sh PROGRAM=PACKAGE ...
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
missing=()
for pair in "$@"; do
  command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
  echo "installing ${missing[*]}" >&2
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
else
  echo "need.sh: missing, please install: ${missing[*]}" >&2
  exit 2
fi
