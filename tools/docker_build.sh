#!/usr/bin/env bash
# Builds images with docker buildx where there is one with a daemon, else with buildah.
# Usage: docker_build.sh [device-amd64] [device-arm64] [host]; all without arguments.
# Variables: PIP_CERT or SSL_CERT_FILE (certificates of a proxy), TORCH_FROM (pip options, see docker/README.md);
# for buildah: BUILDAH_OPTIONS (storage), BUILDAH_BUILD_OPTIONS.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- device-amd64 device-arm64 host
for target in "$@"; do
  case $target in device-amd64|device-arm64|host) ;; *)
    echo "docker_build.sh: $target: known are device-amd64, device-arm64 and host" >&2; exit 2;;
  esac
done
certificates=${PIP_CERT:-${SSL_CERT_FILE:-}}
if docker buildx version >/dev/null 2>&1 && docker info >/dev/null 2>&1; then
  CA=$certificates exec docker buildx bake -f docker/docker-bake.hcl "$@"
fi
bash tools/need.sh buildah=buildah
read -ra storage <<< "${BUILDAH_OPTIONS:-}"
read -ra extra <<< "${BUILDAH_BUILD_OPTIONS:-}"
case $(uname -m) in aarch64) native=arm64;; *) native=amd64;; esac
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' device/qhyvit_device/__init__.py)
[ -z "$certificates" ] || extra+=(--secret "id=ca,src=$certificates")
[ -z "${TORCH_FROM:-}" ] || extra+=(--build-arg "TORCH_FROM=$TORCH_FROM")
for target in "$@"; do
  case $target in
    host) file=host architecture=$native image=localhost/qhyvit:$version;;
    *) file=device architecture=${target#device-} image=localhost/qhyvit-device:$version-${target#device-};;
  esac
  echo "docker_build.sh: $image" >&2
  # buildah 1.28 does not set BUILDPLATFORM by itself; the date is fixed, so that the same tree gives the same digest
  buildah "${storage[@]}" bud --isolation chroot --quiet --platform "linux/$architecture" --timestamp 0 \
    --build-arg "BUILDPLATFORM=linux/$native" --build-arg "VERSION=$version" "${extra[@]}" \
    -f "docker/$file.Dockerfile" -t "$image" . >/dev/null ||
    { echo "docker_build.sh: $target failed; no registry? \`bash tools/docker_base.sh build/docker\` makes the base" \
        "image from Debian's packages" >&2; exit 2; }
  echo "$image"
done
