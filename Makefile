# `make report` and `make test` install what they need when they need it.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# The first Python of a supported version; for a virtual environment, the Python it was made from.
PYTHON ?= python3 python3.13 python3.12 python3.11
find_base := "import sys; print(getattr(sys, '_base_executable', sys.executable)); \
  sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))"
BASE := $(shell for p in $(PYTHON); do \
  base=$$("$$p" -c $(find_base) 2> /dev/null) && { echo "$$base"; break; }; done)

# .venv is installed again when its packages, its folder or its Python change, whatever the times of
# files are. An interrupted installation leaves no stamp.
STAMP := .venv/installed-$(shell { cat requirements.lock requirements-torch.lock pyproject.toml; \
  pwd -P; "$(BASE)" --version; } 2> /dev/null | cksum | cut -d ' ' -f 1)
INSIDE := PATH="$$PWD/.venv/bin:$$PATH"
SECONDS ?= 60
# The plugin for clusters, in a folder of its own: every snakemake that finds it starts more slowly.
PLUGIN := .venv/slurm-$(shell cksum < requirements-slurm.lock | cut -d ' ' -f 1)
# timm and transformers, likewise: a training that finds transformers starts a second later.
EXTRAS := .venv/extras-$(shell cksum < requirements-extras.lock | cut -d ' ' -f 1)
OF_STUDY := $(if $(STUDY),--study "$(STUDY)")

.PHONY: help report plan explain verify adopt store test test-all test-slurm test-extras extras slurm fuzz reference screenshot lint lock environment clean-environment

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 20

report: environment ## run the study of config.yaml and write its report; ARGUMENTS goes to snakemake
	@$(INSIDE) snakemake $(ARGUMENTS)

plan: environment ## show what would run, which change caused it and how long it takes; STUDY=file
	@$(INSIDE) assay plan $(OF_STUDY) $(ARGUMENTS)

explain: environment ## the same for RUN=finetune/scratch_few/seed0, in full
	@$(INSIDE) assay explain $(OF_STUDY) $(RUN) $(ARGUMENTS)

verify: environment ## derive each number of the report again; RUN=... also runs those again
	@$(INSIDE) assay verify $(OF_STUDY) $(if $(RUN),--replay $(RUN)) $(ARGUMENTS)

adopt: environment ## keep runs that a refactoring does not change; RUN=..., ARGUMENTS="--intervals 5"
	@$(INSIDE) assay adopt $(OF_STUDY) $(RUN) $(ARGUMENTS)

store: environment ## show what results/ contains; ARGUMENTS=--remove deletes runs that no study uses
	@$(INSIDE) assay store $(OF_STUDY) $(ARGUMENTS)

test: environment ## run the fast tests; ARGUMENTS goes to pytest
	@$(INSIDE) python -m pytest -n auto -m "not slow" $(ARGUMENTS)

test-all: environment ## run all tests; ARGUMENTS goes to pytest
	@$(INSIDE) python -m pytest -n auto $(ARGUMENTS)

test-slurm: environment $(PLUGIN) ## run a study on a temporary SLURM of one node; needs root and apt
	@$(INSIDE) PYTHONPATH="$$PWD/$(PLUGIN):src:tests" python -m support.slurm $(ARGUMENTS)

test-extras: environment $(EXTRAS) ## run the tests of models of timm and transformers
	@$(INSIDE) PYTHONPATH="$$PWD/$(EXTRAS)" python -m pytest tests/models/test_timm.py tests/models/test_transformers.py $(ARGUMENTS)

fuzz: environment ## kill the default study at random for SECONDS, and compare its bytes
	@$(INSIDE) PYTHONPATH=src:tests python -m support.fuzz --seconds $(SECONDS) $(ARGUMENTS)

reference: environment ## write docs/reference.md and the JSON schema of studies from the code
	@$(INSIDE) python -m assay.study.reference

# Of the page the picture shows the top and two figures, and leaves out what is between them.
SHOWN := h1, .answer, .scroll:not(.scroll ~ .scroll), .figures
HIDDEN := main > :not($(SHOWN)), figure:nth-child(n+3) { display: none }
CROP := from PIL import Image, ImageChops as c; i = Image.open("docs/report.png").convert("RGB"); \
  b = c.difference(i, Image.new("RGB", i.size, i.getpixel((0, 0)))).getbbox(); \
  i.crop((0, 0, i.width, b[3] + 36)).quantize(256, 2).save("docs/report.png", optimize=True)

screenshot: environment ## draw the report of the default study as docs/report.png; needs chromium
	@command -v chromium > /dev/null || { echo "chromium was not found: apt-get install chromium" >&2; exit 1; }
	@test -f reports/digits/index.html || { echo "there is no reports/digits: make report" >&2; exit 1; }
	@sed 's|</head>|<style>$(HIDDEN)</style></head>|' reports/digits/index.html > docs/report.html
	@chromium --headless --no-sandbox --hide-scrollbars --force-device-scale-factor=1.4 \
	  --window-size=1200,1600 --screenshot=docs/report.png "file://$$PWD/docs/report.html" 2> /dev/null
	@rm docs/report.html
	@$(INSIDE) python -c '$(CROP)'

lint: environment ## check the style of the code and of the workflow
	@$(INSIDE) ruff check .
	@$(INSIDE) ruff format --check .
	@$(INSIDE) lint-imports
	@$(INSIDE) snakefmt --check Snakefile workflow
	@$(INSIDE) snakemake --lint

lock: ## pin the newest packages that pyproject.toml admits; needs uv
	@uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
	  --no-header --no-annotate --upgrade --constraint requirements-torch.lock $(UNLOCKED) \
	  --output-file requirements.lock > /dev/null
	@uv pip compile pyproject.toml --extra slurm --universal --python-version 3.11 --generate-hashes \
	  --no-header --no-annotate --constraint requirements-torch.lock --constraint requirements.lock \
	  $(UNLOCKED) $$(sed -n 's/^\([a-z0-9._-]*\)==.*/--no-emit-package \1/p' requirements.lock) \
	  --output-file requirements-slurm.lock > /dev/null
	@uv pip compile pyproject.toml --extra timm --extra transformers --extra datasets --universal \
	  --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --constraint requirements-torch.lock --constraint requirements.lock $(UNLOCKED) \
	  --no-emit-package torchvision \
	  $$(sed -n 's/^\([a-z0-9._-]*\)==.*/--no-emit-package \1/p' requirements.lock) \
	  --output-file requirements-extras.lock > /dev/null

# torch and the packages of its CUDA build are installed in a separate step.
UNLOCKED := $(foreach package,torch triton cuda-bindings cuda-pathfinder cuda-toolkit \
  nvidia-cublas nvidia-cuda-cupti nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cudnn-cu13 \
  nvidia-cufft nvidia-cufile nvidia-curand nvidia-cusolver nvidia-cusparse nvidia-cusparselt-cu13 \
  nvidia-nccl-cu13 nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx,--no-emit-package $(package))

environment:
	@test -f "$(STAMP)" || $(MAKE) --no-print-directory install

install:
	@test -n "$(BASE)" || { echo "Python 3.11 to 3.13 is needed and was not found; name one with PYTHON=..." >&2; exit 1; }
	@echo "Installing the packages of requirements.lock into .venv: this takes a few minutes, once."
	@rm -rf .venv
	@"$(BASE)" -m venv .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-torch.lock
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch "$(STAMP)"

slurm: environment ## add to .venv what `snakemake --profile profiles/slurm` needs
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-slurm.lock

extras: environment ## add to .venv what models of timm and transformers and the hub's data sets need
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-extras.lock

$(PLUGIN): requirements := requirements-slurm.lock
$(EXTRAS): requirements := requirements-extras.lock
$(PLUGIN) $(EXTRAS): | environment
	@rm -rf $@ $@.part
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps \
	  --target $@.part -r $(requirements)
	@mv $@.part $@

clean-environment: ## remove .venv
	@rm -rf .venv
