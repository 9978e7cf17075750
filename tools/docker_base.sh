#!/usr/bin/env bash
# debian:bookworm-slim for this machine, made from Debian's packages, in buildah's storage: for building without a
# registry. Usage: docker_base.sh FOLDER (keeps the tar there); BUILDAH_OPTIONS is given to buildah.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "${1:?folder}"
folder=$(cd "$1" && pwd)
read -ra options <<< "${BUILDAH_OPTIONS:-}"
image=docker.io/library/debian:bookworm-slim
bash "$here/need.sh" buildah=buildah mmdebstrap=mmdebstrap
buildah "${options[@]}" inspect --type image $image >/dev/null 2>&1 && exit 0
if [ ! -e "$folder/bookworm.tar" ]; then
  echo "docker_base.sh: making $image (2 minutes)" >&2
  mmdebstrap --quiet --variant=minbase --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    bookworm "$folder/new.tar" >&2
  mv "$folder/new.tar" "$folder/bookworm.tar"
fi
printf 'FROM scratch\nADD bookworm.tar /\nCMD ["bash"]\n' > "$folder/base.Dockerfile"
buildah "${options[@]}" bud --isolation chroot --quiet -f "$folder/base.Dockerfile" -t $image "$folder" >/dev/null
