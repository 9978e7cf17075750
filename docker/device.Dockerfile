# The device stage, for linux/amd64 and linux/arm64. Everything is put together on the machine that builds; nothing of
# the target's architecture is run, so no emulation is needed. There is no shell and no compiler in the image.
ARG DEBIAN=docker.io/library/debian:bookworm-slim

# hadolint ignore=DL3029
FROM --platform=$BUILDPLATFORM ${DEBIAN} AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3-pip=23.0.* \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY pipeline/qhyvit/device_tree.sh ./
ARG TARGETARCH
RUN bash device_tree.sh root "${TARGETARCH}" root
COPY pipeline/qhyvit/device_wheels.txt ./
# `ca`: certificates of a proxy, where there is one; see docker/README.md
RUN --mount=type=secret,id=ca,target=/run/secrets/ca \
    case "${TARGETARCH}" in arm64) machine=aarch64;; *) machine=x86_64;; esac \
 && if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi \
 && python3 -m pip download --no-cache-dir --no-deps --only-binary=:all: --dest wheels -r device_wheels.txt \
      --python-version 3.11 --implementation cp --abi cp311 --abi abi3 --abi none \
      --platform "manylinux_2_27_${machine}" --platform "manylinux_2_28_${machine}" \
      --platform "manylinux2014_${machine}" \
 && bash device_tree.sh site wheels site

FROM scratch
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="qhyvit-device" \
      org.opencontainers.image.description="Runs and measures integer TFLite bundles of hybrid vision transformers" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
COPY --from=build /build/root/ /
COPY --from=build /build/site/ /app/site/
COPY device/qhyvit_device/ /app/device/qhyvit_device/
ENV PYTHONPATH=/app/device:/app/site PYTHONDONTWRITEBYTECODE=1
USER 1000:1000
WORKDIR /tmp
ENTRYPOINT ["/usr/bin/python3", "-P", "-m", "qhyvit_device"]
CMD ["info"]
