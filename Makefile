# Everything a newcomer needs: the first `make run` or `make test` creates .venv from the lock file.
PYTHON ?= python3
VENV := .venv
# Whose every branch the specifications must cover.
DECIDING := ledger.deciders ledger.approving ledger.approval_steps ledger.deadlines \
	ledger.counting ledger.recycling ledger.recycling_rules ledger.groups ledger.tokens \
	ledger.working_days ledger.orphans ledger.standing_in ledger.handing_over
# How many processes share the tests; each that needs a database has a server of its own.
TEST_PROCESSES ?= 2
SHARED := --numprocesses $(TEST_PROCESSES) --dist worksteal
GUISHU := $(VENV)/bin/guishu
# Bytecode is kept whatever the environment says, since compiling everything takes each process as
# long as the rest of its start; the tests start hundreds.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: run run-kafka test soak simulate bench docs lock clean

$(VENV)/.ready: requirements.lock
	$(PYTHON) -c 'import sys; sys.exit("guishu needs Python 3.11 or newer; set PYTHON=...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/python -m pip install --quiet --require-hashes --requirement requirements.lock
	$(VENV)/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# The ledger with a demo organisation, until Ctrl-C; a second start finds everything in place.
run: $(VENV)/.ready
	@exec $(GUISHU) run --demo

# The same with each role as a process of its own, beside a real Apache Kafka (Java 17 and mvn, or
# KAFKA_BOOTSTRAP), until Ctrl-C.
run-kafka: $(VENV)/.ready
	@exec $(GUISHU) run-kafka --demo

test: $(VENV)/.ready
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/python -m pytest tests/specs $(SHARED) $(DECIDING:%=--cov=%) --cov-branch \
		--cov-fail-under=100 --cov-report=term-missing:skip-covered
	$(VENV)/bin/python -m pytest --ignore=tests/specs $(SHARED)

# Clients at work while processes are killed; what they were told is then held against the log.
# SEED plans the same operations and kills again; without it one is made up, and printed.
SECONDS ?= 60
SEED ?=
soak: $(VENV)/.ready
	$(VENV)/bin/python -m tests.soak $(SECONDS) $(SEED)

# Schedules of the simulation: COUNT of them from SEED on, else 1,000 from a seed that it tells.
simulate: $(VENV)/.ready
	$(VENV)/bin/python -m tests.simulation $(SEED:%=--seed %) $(COUNT:%=--count %)

bench: $(VENV)/.ready
	$(GUISHU) bench

# Writes docs/events.md and docs/asyncapi.json from the code; a test sees that they are up to date.
docs: $(VENV)/.ready
	$(VENV)/bin/python -m api.docs docs

# Needs uv on the PATH; resolves for every platform and Python from 3.11 on. The extras stay in the
# lock file, for without them pip before 23.3 takes the newest version and finds no hash for it.
lock:
	uv pip compile --quiet --universal --generate-hashes \
		--no-strip-extras --python-version 3.11 --group dev --no-header pyproject.toml --output-file requirements.lock

clean:
	rm -rf $(VENV)
