# The commands a user types. Everything runs in .venv, installed from the hash-locked requirements.
PYTHON ?= python3
BIN := .venv/bin
export PYTHONUNBUFFERED := 1
# Every stage is a process of its own: without cached bytecode each would compile torch again (5 s).
export PYTHONDONTWRITEBYTECODE :=

.PHONY: repro test lint gate lock clean
.DELETE_ON_ERROR:

repro: .venv/runtime  ## build, measure and report everything that changed
	@$(BIN)/dvc repro $(REPRO); status=$$?; $(BIN)/python -m stages.summary --show && exit $$status

test: .venv/dev  ## run the tests
	$(BIN)/pytest

lint: .venv/dev  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

gate: .venv/runtime  ## exit 0 only if every required build passed; reads the last report
	@$(BIN)/python -m stages.gate

lock: .venv/runtime  ## compile the hashed locks again
	$(BIN)/uv pip compile $(LOCK) requirements.in -o requirements.txt
	$(BIN)/uv pip compile $(LOCK) requirements-dev.in -o requirements-dev.txt
LOCK := --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate \
	--no-emit-index-url --custom-compile-command "make lock"

clean:  ## forget everything that was built here; the downloads in .cache/ stay
	rm -rf artifacts reports .dvc/cache .dvc/tmp dvc.lock

# uv comes from the lock too: its lines are cut out of requirements.txt for pip to check.
.venv/uv: requirements.txt
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; \
	  sys.exit(0 if (3, 11) <= v <= (3, 13) else f"found Python {v[0]}.{v[1]}, wanted 3.11 to 3.13: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	sed -n '/^uv==/,/[^\\]$$/p' requirements.txt > $@.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $@.txt
	touch $@

.venv/runtime: .venv/uv
	$(BIN)/uv pip install --python $(BIN)/python --require-hashes -r requirements.txt
	touch $@

.venv/dev: .venv/runtime requirements-dev.txt
	$(BIN)/uv pip install --python $(BIN)/python --require-hashes -r requirements-dev.txt
	touch $@
