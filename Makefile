# make demo   a few methods on the two shipped bases and embedded data; writes two reports below $(OUT)
# make test   the test suite            make lint   ruff, mypy, import-linter            make clean   undo the installs
# make bases  pretrain the two shipped bases again, from the folder TEXT=… of .txt.xz files
#
# Each environment is made once and again only when pyproject.toml, constraints.txt or this file changes.
# PYTHON=python3.12 picks an interpreter; TORCH_FLAGS="--index-url …" another source of torch (a CPU build).

PYTHON      ?= python3
TORCH_FLAGS ?=
OUT         ?= runs/demo

PIP   := bin/python -m pip install --quiet --no-input --disable-pip-version-check -c constraints.txt
TORCH := torch==2.13.0
PRETRAIN = OMP_NUM_THREADS=1 .venv-test/bin/python tools/pretrain.py --text $(TEXT) --work runs/pretrain

.DEFAULT_GOAL := help
.PHONY: help demo test lint bases clean python

help:
	@sed -n '1,6s/^# \{0,1\}//p' $(MAKEFILE_LIST)

demo: .venv-demo/.installed
	.venv-demo/bin/graftune compare --methods hard-prompt,lora,prefix --out $(OUT)/decoder
	.venv-demo/bin/graftune compare --out $(OUT)/encoder --base tiny-encoder --task classify
	@echo "open $(abspath $(OUT))/decoder/report.html and $(abspath $(OUT))/encoder/report.html"

test: .venv-test/.installed
	.venv-test/bin/python -m pytest $(ARGS)

lint: .venv-test/.installed
	.venv-test/bin/ruff check .
	.venv-test/bin/ruff format --check .
	.venv-test/bin/mypy
	.venv-test/bin/lint-imports

# One process makes tokenizer and tokens for both; then each base trains on a core of its own.
bases: .venv-test/.installed
	@test -n "$(TEXT)" || { echo "error: say where the text is: make bases TEXT=folder-of-txt.xz-files" >&2; exit 1; }
	$(PRETRAIN) decoder --out src/graftune/bases/tiny_decoder --only-text
	$(PRETRAIN) decoder --out src/graftune/bases/tiny_decoder & decoder=$$!; \
	$(PRETRAIN) encoder --out src/graftune/bases/tiny_encoder && wait $$decoder

# torch comes first: TORCH_FLAGS is for it alone, and the rest then finds it installed.
.venv-demo/.installed: EXTRAS :=
.venv-test/.installed: EXTRAS := [dev]
.venv-demo/.installed .venv-test/.installed: pyproject.toml constraints.txt Makefile | python
	$(PYTHON) -m venv --clear $(@D)
	@echo "installing into $(@D); torch is large, this can take minutes"
	$(@D)/$(PIP) $(TORCH_FLAGS) '$(TORCH)'
	$(@D)/$(PIP) -e '.$(EXTRAS)'
	@touch $@

python:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "error: no $(PYTHON) found; install Python 3.11 or newer, or name one: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: graftune needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Name another: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: $(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

# runs/ holds results and is left alone.
clean:
	rm -rf .venv-demo .venv-test .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find src tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
