# The commands a user types. Everything runs in .venv, installed from the hash-locked requirements.
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHONUNBUFFERED := 1
# Every stage is a process of its own: without cached bytecode each would compile torch again (5 s).
export PYTHONDONTWRITEBYTECODE :=
# As in stages/__init__.py, for tests, which import torch first.
export OMP_WAIT_POLICY := PASSIVE
EXTRAS := $(patsubst extras/%.txt,%,$(wildcard extras/*.txt))

.PHONY: repro test test-catalogue test-extras lint gate final scale serve load gpu peers lock clean again
.DELETE_ON_ERROR:

repro: .venv/runtime  ## build, measure and report everything that changed
	@kiln repro $(REPRO)

test: .venv/dev  ## run the tests, on all cores
	pytest -n auto --dist loadgroup --no-loadscope-reorder

test-catalogue: .venv/dev  ## every model of the catalogue, as a replica of random weights, from `pin` to a release in FunASR's runtime
	pytest tests/catalogue -n auto --dist loadgroup

test-extras: .venv/dev $(patsubst %,.venv/extra-%,$(filter-out cuda,$(EXTRAS)))  ## the tests of the optional parts, each with its own lock; EXTRAS chooses
	pytest $(wildcard $(EXTRAS:%=tests/extras/test_%*.py))

lint: .venv/dev  ## ruff and mypy
	ruff check .
	ruff format --check .
	mypy

gate: .venv/runtime  ## exit 0 only if every required build passed; reads the last report
	@kiln gate

final: .venv/runtime  ## the required builds on the sealed split, which no stage reads
	@kiln final

scale: .venv/runtime  ## MODEL, or one of each kind, at full size with random weights: seconds, memory, disk, speed
	@python -m benchmarks.scale $(MODEL) $(if $(TARGETS),--targets $(TARGETS))

serve: .venv/extra-serve  ## Triton with BUILD (or several) of artifacts/release, over HTTP on port 8000, gRPC, metrics
	@kiln serve $(or $(BUILD),$(MODEL)-cpu_int8)

load: .venv/extra-serve  ## requests to MODEL of a server that `make serve` started: throughput, p50, p95, p99
	@python -m benchmarks.load $(MODEL)

gpu: .venv/extra-cuda  ## what needs a CUDA device, in one go of at most eight minutes: benchmarks/gpu/<device>.md
	@python -m benchmarks.gpu

peers: .venv/runtime  ## the same checkpoints, or MODEL's, through other tools: accuracy, latency, size, build seconds, memory
	@python -m benchmarks.peers $(MODEL)

lock: .venv/runtime  ## compile the hashed locks again
	uv pip compile $(LOCK) requirements.in -o requirements.txt
	uv pip compile $(LOCK) requirements-dev.in -o requirements-dev.txt
	$(foreach version,$(OLDER),uv pip compile $(LOCK) --no-deps stages/runtimes/older_versions/$(version).in \
	  -o stages/runtimes/older_versions/$(version).txt &&) true
	$(foreach extra,$(EXTRAS),uv pip compile $(LOCK) $(LOCK_$(extra)) extras/$(extra).in -o extras/$(extra).txt &&) true
	uv pip compile $(LOCK) --no-deps stages/serving/triton.in -o stages/serving/triton.txt
	uv pip compile $(LOCK) --no-deps stages/runtimes/onnx2tf.in -o stages/runtimes/onnx2tf.txt
LOCK := --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate \
	--no-emit-index-url --custom-compile-command "make lock"
LOCK_serve := --no-deps
LOCK_cuda := --no-deps

clean:  ## forget everything that was built here; the downloads in .cache/ stay
	rm -rf artifacts reports .dvc/cache .dvc/tmp dvc.lock stages/dvc.lock stages/dag/*/dvc.lock

# uv comes from the lock too: its lines are cut out of requirements.txt for pip to check.
.venv/uv: requirements.txt
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; \
	  sys.exit(0 if (3, 11) <= v <= (3, 13) else f"found Python {v[0]}.{v[1]}, wanted 3.11 to 3.13: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	sed -n '/^uv==/,/[^\\]$$/p' requirements.txt > $@.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $@.txt
	touch $@

# Kiln itself, as a link to this folder: `kiln` is then on the PATH of .venv. Its requirements are those of the lock.
.venv/runtime: .venv/libraries .venv/older pyproject.toml
	$(BIN)/uv pip install --quiet --python $(BIN)/python --offline --no-deps --no-build-isolation --editable .
	touch $@

# ONNX Runtime as others still have it, to find the oldest one that loads a release. Newer Pythons have no wheel of some.
OLDER := $(patsubst stages/runtimes/older_versions/%.txt,%,$(wildcard stages/runtimes/older_versions/*.txt))
# They are among the downloads, which may be gone while .venv is not: CI keeps the two apart.
.venv/older: .venv/uv $(wildcard stages/runtimes/older_versions/*.txt) $(if $(wildcard .cache/onnxruntime),,again)
	$(foreach version,$(OLDER),$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes \
	  --target .cache/onnxruntime/$(version) -r stages/runtimes/older_versions/$(version).txt &&) true
	touch $@

.venv/libraries: .venv/uv
	@echo 'Installing the locked requirements into .venv: about 3 GB of downloads, most of it torch.'
	@# Compiled at once, by all cores: or the first stages do it, each for itself.
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.txt
	touch $@

.venv/dev: .venv/runtime requirements-dev.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements-dev.txt
	touch $@

# What only some users need, on top of the rest: `make .venv/extra-serve`.
.venv/extra-%: extras/%.txt .venv/runtime
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r $<
	touch $@

# In a folder of its own, as stages/runtimes/onnxruntime_cuda.py says.
.venv/extra-cuda: extras/cuda.txt .venv/runtime
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes --target .cache/onnxruntime/cuda -r $<
	touch $@

# Triton itself, which `kiln serve` runs, in a folder beside .venv.
.venv/extra-serve: .venv/triton
.venv/triton: stages/serving/triton.txt .venv/uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes --target .cache/triton -r $<
	touch $@

# LiteRT's converter with the versions that it pins, in a folder beside .venv: stages/runtimes/litert.py.
.venv/extra-litert: .venv/onnx2tf
.venv/onnx2tf: stages/runtimes/onnx2tf.txt .venv/uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes --target .cache/onnx2tf -r $<
	touch $@
