# Every target builds .venv first; scripts/bootstrap.py returns at once when nothing changed.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
ARGS ?=
export PYTHONUNBUFFERED := 1

.PHONY: demo test lint bench bench-quick bench-filter bench-peers bench-loop prove evaluate pages clean venv
.DELETE_ON_ERROR:

demo: $(STAMP)
	$(VENV)/bin/safety-filter demo $(ARGS)

test: lint
	$(PY) -m pytest -m "not prove" --cov --cov-report=term --cov-report=json:out/coverage.json $(ARGS)

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/hadolint docker/Dockerfile

# All suites and methods with shipped policy and real perception; killed, it continues
bench: $(STAMP)
	$(VENV)/bin/safety-filter bench $(ARGS)

bench-quick: $(STAMP)
	$(VENV)/bin/safety-filter bench --episodes 2 --no-films --out out/bench-quick $(ARGS)

bench-filter: $(STAMP)
	$(PY) -m safety_filter.bench.filter_speed $(ARGS)

bench-peers: $(STAMP)
	$(PY) -m safety_filter.bench.peers $(ARGS)

bench-loop: $(STAMP)
	$(PY) -m safety_filter.bench.loop $(ARGS)

prove: $(STAMP)
	$(PY) -m safety_filter.bench.prove $(ARGS)

evaluate: $(STAMP)
	$(VENV)/bin/safety-filter evaluate vla $(ARGS)
	$(VENV)/bin/safety-filter evaluate perception $(ARGS)

# docs and policies that are written from tables in the code; tests say when they are out of date
pages: $(STAMP)
	$(VENV)/bin/safety-filter parameters > docs/parameters.md
	$(VENV)/bin/safety-filter interfaces > docs/topics.md
	$(VENV)/bin/safety-filter doctor --page > docs/troubleshooting.md
	$(VENV)/bin/safety-filter policy > config/security/demo.policy.xml
	$(VENV)/bin/safety-filter policy --arm panda > config/security/arm.policy.xml

venv: $(STAMP)

$(STAMP): setup.py constraints.txt scripts/bootstrap.py
	$(PYTHON) scripts/bootstrap.py --venv $(VENV)

clean:
	rm -rf out build install log .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +
