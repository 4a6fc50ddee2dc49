# 'make demo' and 'make test' do all their own set-up; nothing but Python 3.11+, venv and make is needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test quick check coverage long bench docs pictures clean

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "densegen needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable . --group dev
	touch $@

demo: $(VENV)/.ready
	$(BIN)/densegen synth demo/corpus --samples 1000 --manifest
	$(BIN)/densegen build demo/corpus/manifest.yaml --out demo/shards
	$(BIN)/densegen verify demo/shards
	$(BIN)/densegen inspect demo/shards --sample SYNTH/SYNTH_00003_2+mirror \
		--model demo/corpus/model.safetensors --out demo/sample.png
	$(BIN)/densetrain fit demo/shards --settings demo --out demo/run
	$(BIN)/densetrain evaluate demo/run --shards demo/shards
	$(BIN)/densetrain report demo/run --out demo/report --profile mobilenet_v2 --profile resnet18
	@echo "Look at demo/sample.png, demo/run/evaluation/shards-validation-worst.png and demo/report/report.html."

check: $(VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check
	$(BIN)/python -m pytest -m "not benchmark and not long" -n auto --maxprocesses 4 --dist worksteal

# Lines that the tests run in their own processes; compiled kernels and the processes of commands do not count.
coverage: $(VENV)/.ready
	$(BIN)/python -m pytest -m "not benchmark and not long" -n auto --maxprocesses 4 --dist worksteal \
		--cov densegen --cov densetrain --cov-report term:skip-covered --cov-fail-under 91

quick: $(VENV)/.ready
	$(BIN)/python -m pytest -m "not benchmark and not slow and not long"

# Every moment at which a disk can fail, and 20,000 damaged files of each kind: an hour or two.
long: $(VENV)/.ready
	DENSE_FAULT_CASES=20000 DENSE_FAULT_MOMENTS=0 $(BIN)/python -m pytest tests/faults tests/test_processors.py
	$(BIN)/python -m pytest -m long tests/densetrain

bench: $(VENV)/.ready
	DENSE_KEEP_RATIOS=1 $(BIN)/python -m pytest -m benchmark

# The site, in build/docs/index.html; a warning is an error.
docs: $(VENV)/.ready
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs
	@echo "build/docs/index.html"

# Every picture of the pages; those of networks are of what 'make demo' trains.
pictures: demo
	$(BIN)/python docs/make_pictures.py
	$(BIN)/python docs/make_training_pictures.py

clean:
	rm -rf $(VENV) demo build dist
