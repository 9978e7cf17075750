# The host stage: from weights to a verified bundle. CPU by default; another build of torch by TORCH_FROM.
ARG DEBIAN=docker.io/library/debian:bookworm-slim

FROM ${DEBIAN} AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3-venv=3.11.* \
 && rm -rf /var/lib/apt/lists/* \
 && python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /opt/qhyvit
ARG TORCH_FROM="--index-url https://download.pytorch.org/whl/cpu"
COPY requirements/torch.txt requirements/
# `ca`: certificates of a proxy, where there is one; see docker/README.md
RUN --mount=type=secret,id=ca,target=/run/secrets/ca \
    if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi \
 && echo "${TORCH_FROM}" | xargs pip install -r requirements/torch.txt
COPY requirements/pipeline.txt requirements/tools.txt requirements/
RUN --mount=type=secret,id=ca,target=/run/secrets/ca \
    if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi \
 && pip install --no-deps -r requirements/pipeline.txt \
 && grep -E '^(typer|rich|matplotlib|setuptools)' requirements/tools.txt > tools.txt \
 && pip install -r tools.txt

FROM ${DEBIAN}
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="qhyvit" \
      org.opencontainers.image.description="Hybrid vision transformers as fully integer TFLite files, verified" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3=3.11.* \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/venv/ /opt/venv/
COPY pyproject.toml README.md LICENSE /opt/qhyvit/
COPY pipeline/ /opt/qhyvit/pipeline/
COPY device/ /opt/qhyvit/device/
RUN /opt/venv/bin/pip install --no-deps --no-build-isolation --no-cache-dir -e /opt/qhyvit
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1
USER 1000:1000
WORKDIR /work
ENTRYPOINT ["qhyvit"]
CMD ["--help"]
