# make help lists the targets. Each works alone on a fresh machine with python3 (>= 3.11) and make.
PYTHON ?= python3
VENV ?= .venv
SFDKIT := $(VENV)/bin/sfdkit
STAMP := $(VENV)/.sfdkit-installed
TESTERS ?= 2
RUN := runs/quickstart
SHARDS := shards/puppets64
# bf16-mixed on a GPU, or a processor, that computes in it; without either two processes of one thread each
PRECISION = $$($(VENV)/bin/python -m sfdkit.device precision)
PROCESSES = $$($(VENV)/bin/python -m sfdkit.device processes)
# what the demo animates
ANIMATED = --source $(RUN)/source.png --driving $(RUN)/driving.mp4 --crop none --side_by_side true
MINUTES ?= 10
SEED ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast gpu lint docs bench clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

setup: $(STAMP)  ## make .venv and install sfdkit into it, with the versions of constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@rm -rf sfdkit.egg-info  # one that an earlier release left would hide the entry points
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@

demo: $(STAMP)  ## animate with the weights that come along, then train experiments/quickstart.yaml on puppets: runs/quickstart
	@if ls $(RUN)/checkpoints/*.ckpt >/dev/null 2>&1; then old=$(RUN)-$$(date +%Y%m%d-%H%M%S); mv $(RUN) $$old && echo "the run that was in $(RUN) is now in $$old"; fi
	@mkdir -p $(RUN) && date +%s >$(RUN)/.began
	$(SFDKIT) puppets render --split test --identity 14 --motion 14 --resolution 64 --output $(RUN)/source.png
	$(SFDKIT) puppets render --split test --identity 19 --motion 19 --resolution 64 --frames 75 --pose 0.5 --output $(RUN)/driving.mp4
	$(SFDKIT) animate --checkpoint puppets64 $(ANIMATED) --size 192 --output $(RUN)/shipped.gif
	@echo; echo "look at $(RUN)/shipped.gif: animated by weights that come with sfdkit, $$(($$(date +%s) - $$(cat $(RUN)/.began))) s after set-up."
	@echo "Now one is trained from scratch, in 6 minutes at most."; echo; rm $(RUN)/.began
	$(SFDKIT) shards pack puppets --output $(SHARDS) --resolution 64 --identities 960 --validation_identities 32 --test_identities 64 --frames_per_clip 8 --fps 3 --pose 0.5 --workers 2
	$(SFDKIT) fit --config experiments/quickstart.yaml $(PROCESSES) --trainer.precision $(PRECISION) --seed_everything $(SEED)
	$(SFDKIT) evaluate --checkpoint $(RUN)/checkpoints/last.ckpt --shards $(SHARDS)/test --output $(RUN)
	$(SFDKIT) animate --checkpoint $(RUN)/checkpoints/last.ckpt $(ANIMATED) --size 256 --output $(RUN)/animation.mp4
	$(SFDKIT) animate --checkpoint $(RUN)/checkpoints/last.ckpt $(ANIMATED) --size 192 --output $(RUN)/animation.gif
	@echo; echo "made in $(RUN):"; ls $(RUN)
	@echo "look at $(RUN)/animation.gif, which this machine has just learned, beside $(RUN)/shipped.gif of the weights that come along,"
	@echo "and at $(RUN)/sheet.png; figures are in $(RUN)/metrics.json"

test: $(STAMP)  ## run all tests, in TESTERS processes, and then those for a GPU if there is one
	$(VENV)/bin/python -m pytest --numprocesses $(TESTERS) --dist loadfile
	$(VENV)/bin/python -m pytest -m gpu tests/test_gpu.py

test-fast: $(STAMP)  ## run the tests that take a few seconds at most, in TESTERS processes
	$(VENV)/bin/python -m pytest --numprocesses $(TESTERS) --dist loadfile -m "not slow and not gpu"

gpu: $(STAMP)  ## everything that a GPU should be asked, in MINUTES minutes: runs/gpu
	$(VENV)/bin/python -m benchmarks.gpu --minutes $(MINUTES)

lint: $(STAMP)  ## ruff (style, docstrings) and mypy (types)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/mypy examples

docs: $(STAMP)  ## write docs/cli.md from the command line's parsers
	$(VENV)/bin/python -m sfdkit.cli_docs docs/cli.md

bench: $(STAMP)  ## how fast this machine animates: each part of a driven frame, and from file to file
	$(SFDKIT) bench inference --animator puppets64
	$(SFDKIT) bench pipeline --animator puppets64

clean:  ## remove what the demo made (the environment stays)
	rm -rf $(RUN) $(SHARDS)
