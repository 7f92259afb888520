# Every target does the set-up it needs; the machine must have Python 3.10 or newer, make and a C++
# compiler. Packages go into the active virtual or conda environment, or else into .venv, once: until
# pyproject.toml changes.

PROFILE ?= quick
PROFILES := smoke quick paper

ifdef VIRTUAL_ENV
ENV := $(VIRTUAL_ENV)
else ifneq ($(filter-out base,$(CONDA_DEFAULT_ENV)),)
# Every shell activates conda's base: nobody chose to have packages put there.
ENV := $(CONDA_PREFIX)
else
ENV := .venv
endif

PY := $(ENV)/bin/python
# One stamp per environment, so that another one that is activated later is set up too.
STAMP := $(if $(filter .venv,$(ENV)),.venv/installed,build/installed$(subst /,-,$(ENV)))
NOTEBOOKS := $(sort $(wildcard notebooks/[0-9]*.ipynb))

NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 10))
CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11 python3.10 python
PYTHON ?= $(firstword $(foreach p,$(CANDIDATES),\
	$(shell $(p) -c '$(NEW_ENOUGH)' 2>/dev/null && echo $(p))))

# Fails with one line that says what is wrong and the way out.
fail = { echo "irevrnn: $(1)" >&2; exit 1; }

# This environment's Jupyter kernel, not one that somebody registered in their home.
export JUPYTER_PREFER_ENV_PATH := 1

.DEFAULT_GOAL := help
.PHONY: help setup reproduce notebooks test bits fuzz asan cuda sanitize lint lab bench paper tables docs data clean compiler profile

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

setup: $(STAMP) ## Install everything into the active environment, or .venv (the other targets do it by themselves)

# One FIGURE runs what it needs of its notebook and builds no paper: other results may be missing.
reproduce: profile $(STAMP) compiler ## Run every notebook and build the paper, or draw one FIGURE (PROFILE=smoke|quick|paper, default quick)
	$(if $(filter paper,$(PROFILE)),@$(PY) -m experiments.provenance)
	@notebooks="$(if $(FIGURE),$$($(PY) paper/build.py --notebook-of '$(FIGURE)'),$(NOTEBOOKS))" || exit 1; \
	$(PY) -m experiments.reproduce --profile $(PROFILE) $(if $(FIGURE),--figure '$(FIGURE)') $$notebooks
	$(if $(FIGURE),,$(PY) paper/build.py --profile $(PROFILE))

# Each notebook has its output as soon as it has run: to go on after a stop, name those that are left.
notebooks: $(STAMP) compiler ## Put the output of a quick run into the notebooks, all or NOTEBOOK="06_costs", to be committed
	@$(PY) -m experiments.provenance
	$(PY) -m experiments.reproduce --keep $(if $(NOTEBOOK),$(NOTEBOOK:%=notebooks/%.ipynb),$(NOTEBOOKS))

# One process per core, each of which takes entire files: what a file compiles is compiled once. Files
# come in the order of tests/conftest.py, slow ones first.
test: $(STAMP) compiler ## Run the tests (ARGS are handed to pytest: "-n 0" runs them in one process)
	$(PY) -m pytest -q -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

bits: $(STAMP) compiler ## Train with every instruction set of this machine, on one thread and two: one hash of the weights
	$(PY) -m experiments.bench.same_bits

fuzz: $(STAMP) compiler ## Compare thousands of random problems with the reference (CASES per test)
	IREVRNN_FUZZ=$(or $(CASES),1000) $(PY) -m pytest -q tests/library/test_fuzz.py $(ARGS)

# Python is not built for the sanitizers, so their runtime is preloaded, with libstdc++, or it does not
# find the function that throws C++ exceptions. The kernels are built anew: flags are part of the
# cache's key. LeakSanitizer would report Python's own leaks.
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g -O1
SANITIZED := $(patsubst %,tests/library/test_%.py,scan fixed_point chunkwise compiled_blocks step ops)

asan: $(STAMP) compiler ## Test the C++ kernels under AddressSanitizer and UBSan (takes g++; ARGS as above)
	IREVRNN_CXXFLAGS="$(SANITIZE)" LD_PRELOAD="$(foreach l,libasan.so libstdc++.so.6,$$($${CXX:-g++} -print-file-name=$l))" \
		ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1 \
		OMP_NUM_THREADS=1 $(PY) -m pytest -q -s $(SANITIZED) $(ARGS)

cuda: $(STAMP) compiler ## Compile every CUDA kernel for every architecture, report registers and spills (needs nvcc, no GPU)
	IREVRNN_CUDA_TESTS=all $(PY) -m pytest -q tests/library/test_cuda_compile.py $(ARGS)
	@mkdir -p build
	$(PY) -m experiments.bench.cuda_resources --output build/cuda_kernels.json

# PyTorch's allocator is switched off: inside its large blocks, a write past the end of a tensor goes
# unnoticed. The kernels are built before, outside the sanitizer.
GPU_TESTS = $(shell grep -rl --include='test_*.py' 'torch.cuda.is_available()' tests/library)

sanitize: $(STAMP) compiler ## Test the CUDA kernels under compute-sanitizer (needs a GPU; ARGS as above)
	@command -v compute-sanitizer >/dev/null || $(call fail,compute-sanitizer is not on PATH: it comes with the CUDA \
		toolkit ('conda install cuda-sanitizer-api'))
	@$(PY) -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || $(call fail,PyTorch finds no GPU)
	$(PY) -m irevrnn.kernels --cuda
	@for tool in memcheck racecheck; do \
		echo "== $$tool"; \
		PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool $$tool --error-exitcode 1 \
			$(PY) -m pytest -q $(GPU_TESTS) $(ARGS) || $(call fail,$$tool found something: see above); \
	done

lint: $(STAMP) ## Check style, format and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

lab: $(STAMP) compiler ## Open the notebooks in JupyterLab
	$(PY) -m jupyter lab notebooks

bench: $(STAMP) compiler ## Measure speed and memory against the peers
	$(PY) -m experiments.bench --output build/bench.json

paper: $(STAMP) ## Compile paper/paper.pdf from the committed results
	$(PY) paper/build.py

tables: $(STAMP) ## Write the tables of figures in README.md and docs/ from the committed results
	$(PY) -m experiments.page_tables

# Every page anew: what a page shows depends on sources all over the tree.
docs: $(STAMP) ## Build the site in build/site, with the notebooks and their output
	rm -rf build/site
	$(PY) -m sphinx -E -q -W --keep-going -c docs -d build/doctrees . build/site
	@echo "build/site/index.html"

data: $(STAMP) ## Fetch MNIST into data/
	$(PY) -m experiments.datasets mnist

# Hours of training are in build/paper, networks of one's own in build/train, the stamps of other environments than .venv in build.
clean: ## Remove dist/, all caches, and build/ but for build/paper and build/train (keeps .venv and data/)
	[ ! -d build ] || find build -mindepth 1 -maxdepth 1 -not -name paper -not -name train -not -name 'installed*' -exec rm -rf {} +
	rm -rf dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

# --- set-up -------------------------------------------------------------------------------------

$(STAMP): pyproject.toml | $(PY)
	@$(PY) -c '$(NEW_ENOUGH)' || $(call fail,$(PY) is older than Python 3.10: activate a newer environment)
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PY) -m ensurepip --upgrade \
		|| $(call fail,$(PY) has no pip: put it there with 'uv pip install pip' or 'conda install pip')
	@echo "irevrnn: installing all packages into $(ENV), with irevrnn as a link to this clone in place of any other"
	$(PY) -m pip install 'pip>=23' -e '.[all]' \
		|| $(call fail,pip could not install the packages (its message is above). To install \
		offline set PIP_INDEX_URL to a mirror or PIP_FIND_LINKS to a folder of wheels and run make again)
	@mkdir -p $(@D) && touch $@

# Debian and Ubuntu package ensurepip apart: this is checked before a half-made .venv is left behind.
.venv/bin/python:
	@$(or $(PYTHON),false) -c '$(NEW_ENOUGH)' 2>/dev/null \
		|| $(call fail,Python 3.10 or newer is needed and not on PATH: install it or name it with make PYTHON=/path/to/python3)
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| $(call fail,$(PYTHON) has no venv module: apt install python3-venv)
	$(PYTHON) -m venv --clear .venv

ifneq ($(ENV),.venv)
$(PY):
	@$(call fail,the active environment $(ENV) has no bin/python: deactivate it or create it again)
endif

compiler:
	@command -v $${CXX:-g++} >/dev/null || command -v c++ >/dev/null || command -v clang++ >/dev/null \
		|| echo "irevrnn: no C++ compiler, so all will be slow, and memory='reversible' an error: apt install g++" >&2

profile:
	@$(if $(filter $(PROFILE),$(PROFILES)),:,$(call fail,PROFILE=$(PROFILE) is unknown: choose one of $(PROFILES)))
