# make demo   the main job on real digits: wrong labels found and repaired, a pool labelled
# make test   every test; make lint: ruff; make gpu-check: what only a GPU can show. All set up .venv the first time.

PYTHON ?= python3
BIN := .venv/bin
RUNS ?= runs
export NO_ALBUMENTATIONS_UPDATE := 1

.PHONY: demo test lint gpu-check setup clean

setup: .venv/.ready

.venv/.ready: requirements.txt requirements-dev.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than 3.11; give a newer one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 2; }
	@echo "Setting up .venv (once, a few minutes: PyTorch is large) …"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt -c constraints.txt
	@touch $@

demo: .venv/.ready
	@echo "1/2  denoise: 10 % of 4,000 labels are flipped on purpose, found, repaired; the student is retrained"
	@$(BIN)/python pseudo.py --mode denoise inject.kind=uniform inject.rate=0.1 name=demo-denoise out=$(RUNS)
	@echo
	@echo "2/2  augment: 250 labels and a pool of 3,750 images without; look-alikes are heard"
	@$(BIN)/python pseudo.py --mode augment pseudo.graph=4 name=demo-augment out=$(RUNS)
	@$(BIN)/python -m src.report.table $(RUNS)/demo-denoise $(RUNS)/demo-augment

test: .venv/.ready
	@echo "Running the tests (a few minutes on two cores) …"
	@$(BIN)/python -m pytest

lint: .venv/.ready
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

gpu-check: .venv/.ready
	@$(BIN)/python -m pytest -vv -n0 tests/gpu_check.py

clean:
	rm -rf .venv runs data
