# make demo   the main job on real digits: wrong labels found and repaired, unlabeled images labeled
# make test   every test; make lint: ruff; make gpu-check: what only a GPU can show. All set up .venv the first time.
# make docs   docs/config.md, written from the config classes
# make test-kaggle   every test on the versions of Kaggle's image, in .venv-kaggle

PYTHON ?= python3
BIN := .venv/bin
RUNS ?= runs
export NO_ALBUMENTATIONS_UPDATE := 1

.PHONY: demo test test-kaggle lint gpu-check docs setup clean

setup: .venv/.ready

.venv/.ready: requirements.txt requirements-dev.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than 3.11; give a newer one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 2; }
	@echo "Setting up .venv (once, a few minutes: PyTorch is large) …"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt -c constraints.txt
	@touch $@

demo: .venv/.ready
	@echo "1/2  denoise: 30 % of 4,000 labels are turned into the next digit, found, repaired; a student is trained on them"
	@$(BIN)/python pseudo.py --mode denoise simulate.noise=pairflip simulate.noise_rate=0.3 name=demo-denoise out=$(RUNS)
	@echo
	@echo "2/2  augment: 250 labels and 3,750 images without; labels are propagated between similar images"
	@$(BIN)/python pseudo.py --mode augment pseudo.label_propagation=4 name=demo-augment out=$(RUNS)
	@PYTHONPATH=src $(BIN)/python -m pseudokit.report.terminal $(RUNS)/demo-denoise $(RUNS)/demo-augment

test: .venv/.ready
	@echo "Running the tests (a few minutes on two cores) …"
	@$(BIN)/python -m pytest

lint: .venv/.ready
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

gpu-check: .venv/.ready
	@$(BIN)/python -m pytest -vv -n0 tests/gpu_check.py

docs: .venv/.ready
	@PYTHONPATH=src $(BIN)/python -m pseudokit.config.reference > docs/config.md.part
	@mv docs/config.md.part docs/config.md

test-kaggle: .venv-kaggle/.ready
	@.venv-kaggle/bin/python -m pytest

.venv-kaggle/.ready: requirements.txt requirements-dev.txt constraints-kaggle.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' || \
	  { echo "error: $(PYTHON) is not 3.11 or 3.12; give one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -m venv .venv-kaggle
	@.venv-kaggle/bin/pip install --quiet --disable-pip-version-check -r requirements-dev.txt -c constraints-kaggle.txt
	@touch $@

clean:
	rm -rf .venv .venv-kaggle runs data
