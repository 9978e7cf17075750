# All targets run in .venv, which `make setup` makes once and re-uses.
PY := .venv/bin/python
MUTANTS ?= 300
SEED ?= 0
CASES ?= 100000
.PHONY: help setup demo test test-slow test-boards test-arm64 test-tosa docker test-docker release-check docs fuzz fuzz-long endurance kill coverage results mutation lint clean

help:           ## this list
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

setup:          ## make or re-use the environment
	@bash tools/setup.sh

demo: setup     ## build, evaluate and run an embedded model, offline, in minutes
	@$(PY) -m benchmarks.demo

test: setup lint  ## lint and the fast tests
	OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --dist loadfile -m "not slow and not boards and not arm64 and not docker and not tosa" -q

test-slow: setup  ## whole models through the exporter
	$(PY) -m pytest -m slow -q

test-boards: setup  ## the bench over a real sshd on loopback, with wheels from the package index
	@bash tools/need.sh sshd=openssh-server ssh=openssh-client
	$(PY) -m pytest -m boards -q

test-arm64: setup  ## the device stage on emulated Cortex-A53, A72 and A76
	$(PY) -m pytest -m arm64 -q -s

test-tosa: setup  ## our integer arithmetic against the reference model of Arm's TOSA, in an environment of its own
	@bash tools/tosa.sh
	OMP_NUM_THREADS=1 $(PY) -m pytest tests/ops/test_tosa.py -n auto -q

docker:         ## the images of the host and the device stage, with docker buildx or buildah
	@bash tools/docker_build.sh

test-docker: setup  ## device images for amd64 and arm64, built with buildah, run without network on a read-only root
	@bash tools/need.sh buildah=buildah bwrap=bubblewrap mmdebstrap=mmdebstrap
	@bash tools/hadolint.sh
	$(PY) -m pytest -m docker -q -s

release-check: setup  ## wheel and sdist, built, installed in clean environments and run (FULL=1: with all of torch)
	@$(PY) tools/release_check.py

docs:           ## the documents as a site in build/site, in an environment of its own
	@bash tools/docs.sh

fuzz: setup     ## CASES mutated inputs of every kind (100,000: an hour on two cores), see docs/decisions
	OMP_NUM_THREADS=1 $(PY) -m tests.fuzz --cases $(CASES) --seed $(SEED)

fuzz-long: setup  ## a million; what is done lies in build/fuzz-SEED.json, and a run that was stopped goes on
	OMP_NUM_THREADS=1 nice -n 15 $(PY) -m tests.fuzz --cases 1000000 --seed $(SEED) --resume build/fuzz-$(SEED).json

endurance: setup  ## a hundred thousand inferences in one process, by eight threads and of a watched folder
	OMP_NUM_THREADS=1 QHYVIT_ENDURANCE=100000 $(PY) -m pytest tests/device/test_endurance.py -q -s

kill: setup     ## every command that writes, killed at each of its changes of the disk, gone on with and compared
	OMP_NUM_THREADS=1 $(PY) -m pytest tests/test_kill.py -q -s

coverage: setup  ## every variant through all stages, random weights; writes benchmarks/results/coverage.csv
	$(PY) -m benchmarks.coverage

results: setup  ## every table anew, by this commit: make results DATA=images WEIGHTS=weights [ONLY=stock,bits]; many hours
	@OMP_NUM_THREADS=1 $(PY) -m benchmarks.make_results --data "$(DATA)" --weights "$(WEIGHTS)" $(if $(ONLY),--only $(ONLY))

mutation: setup  ## how many of MUTANTS small changes of ops, passes and lowering the tests see; takes up what is done
	@$(PY) -m pip --disable-pip-version-check install --quiet -r requirements/mutation.txt
	OMP_NUM_THREADS=1 PYTHONPATH=. nice -n 15 $(PY) tools/mutation.py --mutants $(MUTANTS) --seed $(SEED)

lint: setup     ## ruff, mypy and the floors of imports
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(dir $(PY))lint-imports --no-cache

clean:          ## remove what was made
	rm -rf .venv .venv-docs .venv-tosa build dist demo-out *.egg-info .pytest_cache .mypy_cache .ruff_cache
