# Everything a newcomer needs: the first `make test` creates .venv from the lock file.
PYTHON ?= python3
VENV := .venv

.PHONY: test lock clean

$(VENV)/.ready: requirements.lock
	$(PYTHON) -c 'import sys; sys.exit("guishu needs Python 3.11 or newer; set PYTHON=...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/python -m pip install --quiet --require-hashes --requirement requirements.lock
	touch $@

test: $(VENV)/.ready
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m pytest

# Needs uv on the PATH; resolves for every platform and Python from 3.11 on.
lock:
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
		--python-version 3.11 --group dev --no-header pyproject.toml --output-file requirements.lock

clean:
	rm -rf $(VENV)
