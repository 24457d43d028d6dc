# One command works from a fresh clone: the first use makes the environment, and Snakemake or pytest do everything else.
# Works with any GNU make from 3.81 on.

# Python versions that every pinned package has wheels for, in order of preference.
PYTHON_VERSIONS := 3.12 3.11 3.13
# An interpreter that is named here is the only candidate: make PYTHON=python3.11 test
PYTHON ?=

CANDIDATES := $(or $(PYTHON),$(addprefix python,$(PYTHON_VERSIONS)) python3 python)
# Many container images forbid Python to keep bytecode (PYTHONDONTWRITEBYTECODE). Each of a workflow's many processes would
# then compile PyTorch's sources again, which takes longer than most jobs. An empty value allows bytecode.
ACTIVATED  := PYTHONDONTWRITEBYTECODE= VIRTUAL_ENV="$(CURDIR)/.venv" PATH="$(CURDIR)/.venv/bin:$$PATH"
COMPILE    := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
              --no-emit-index-url --custom-compile-command "make requirements" $(UV_FLAGS)

# The user's cache, shared by all checkouts: `make clean` removes only what killed commands left there a day ago or more.
CACHE      := $(or $(DCAE_BENCH_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/dcae-bench)

MAKEFLAGS += --no-builtin-rules
.SUFFIXES:
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help report docs setup cluster test test-long storm lint bench requirements clean distclean FORCE
# An interrupted Snakemake cleans up after itself, so make must not delete a result too.
.PRECIOUS: results/%

help:
	@echo 'DC-AE Bench'
	@echo
	@echo '  make results/table_rfid.md               train, evaluate and write the reconstruction table'
	@echo '  make results/table_diffusion.md          train denoisers on the latents, sample, and write the generation table'
	@echo '  make results/table_ablation.md           train with one of the paper'\''s ideas left out, and write the table of ablations'
	@echo '  make results/table_throughput.md         time UViT-S on the processors and write the throughput table'
	@echo '  make report                              write results/report.html: one page of everything that was measured'
	@echo '  make results/figures/NAME.png            draw a figure: reconstructions, losses, samples, diffusion_loss'
	@echo '  make results/ANYTHING                    same as: snakemake --cores all results/ANYTHING'
	@echo '  make results/ANYTHING PROFILE=paper      the same with another profile from config/'
	@echo '  make results/ANYTHING SNAKEMAKE_FLAGS=-n the same with more options for Snakemake'
	@echo
	@echo '  make test                                run the tests (PYTEST_FLAGS="-k phases -x")'
	@echo '  make test-long                           run the tests that take too long for make test'
	@echo '  make storm                               ten minutes of kills, crashes, full disks and two at once under both tables of a'
	@echo '                                           tiny profile; no number may change (STORM_FLAGS="--tries 6 --seed 1")'
	@echo '  make lint                                ruff, snakefmt, import-linter, mypy, snakemake --lint'
	@echo '  make bench                               run the benchmarks (PYTEST_FLAGS)'
	@echo
	@echo '  make setup                               make .venv; every command above does so if needed (PYTHON=python3.11)'
	@echo '  make cluster                             add Snakemake'\''s plugins for SLURM and Kubernetes to .venv (docs/cluster.md)'
	@echo '  make docs                                build docs/ as a site, build/docs/site/index.html, and check its links'
	@echo '  make requirements                        pin the packages of pyproject.toml again (UV_FLAGS=--upgrade)'
	@echo '  make clean                               remove results, except results/reference, leftovers, and Snakemake'\''s memory'
	@echo '  make distclean                           clean, and remove .venv'

# FORCE: Snakemake decides whether a result is up to date. The target stands before options that take many values.
results/%: FORCE .venv/.installed
	@$(ACTIVATED) snakemake --cores all $@ $(SNAKEMAKE_FLAGS) $(if $(PROFILE),--config profile='$(subst ','\'',$(value PROFILE))')
	@$(if $(filter -n --dry-run --dryrun,$(SNAKEMAKE_FLAGS)),,$(call said,$@))

# The last words on what was made: of a table its most telling numbers and what to open.
said = case '$(1)' in \
  results/table_*) [ ! -e '$(basename $(1)).json' ] || $(ACTIVATED) dcae-bench show '$(basename $(1)).json' ;; \
  *) [ ! -e '$(1)' ] || echo 'Open $(1)' ;; esac

# Of what is there, at once. `make results/report.html` first brings the tables that exist up to date.
report: .venv/.installed
	@$(ACTIVATED) dcae-bench report $(REPORT_FLAGS)

# Strict: a warning, such as a link to a page or heading that is not there, is an error.
docs: .venv/.docs
	@$(ACTIVATED) python docs/stage.py build/docs/source
	@$(ACTIVATED) zensical build --strict --clean
	@echo 'Open build/docs/site/index.html, or with search: python3 -m http.server --directory build/docs/site'

test: .venv/.installed
	@$(ACTIVATED) pytest --numprocesses auto --dist loadfile --no-loadscope-reorder $(PYTEST_FLAGS)

test-long: .venv/.installed
	@$(ACTIVATED) pytest -m long --numprocesses auto --dist loadfile --no-loadscope-reorder $(PYTEST_FLAGS)

storm: .venv/.installed
	@$(ACTIVATED) python -m tests.storm $(STORM_FLAGS)

lint: .venv/.installed
	@$(ACTIVATED) ruff check --quiet .
	@$(ACTIVATED) ruff format --quiet --check .
	@$(ACTIVATED) snakefmt --check Snakefile workflow
	@$(ACTIVATED) lint-imports --no-logo
	@$(ACTIVATED) mypy
	@$(ACTIVATED) snakemake --lint

bench: .venv/.installed
	@$(ACTIVATED) pytest --benchmark-only $(PYTEST_FLAGS)

setup: .venv/.installed

cluster: .venv/.cluster

# The stamp is written last, so that the next call continues an interrupted installation.
.venv/.installed: .venv/.tools environment.post-deploy.sh requirements.txt pyproject.toml
	@$(ACTIVATED) sh environment.post-deploy.sh
	@touch $@

.venv/.cluster: .venv/.installed requirements-cluster.txt
	@$(ACTIVATED) python -m uv pip install --quiet --no-deps --require-hashes -r requirements-cluster.txt
	@touch $@

.venv/.docs: .venv/.installed requirements-docs.txt
	@$(ACTIVATED) python -m uv pip install --quiet --no-deps --require-hashes -r requirements-docs.txt
	@touch $@

# An empty or broken .venv (interrupted, or without its Python) is made anew; a sound .venv is kept.
.venv/.tools: requirements-build.txt
	@fits() { case " $(PYTHON_VERSIONS) " in *" $$1 "*) ;; *) return 1 ;; esac; }; \
	version_of() { "$$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }; \
	if ! fits "$$(version_of .venv/bin/python)" || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then \
	  chosen=; seen=; \
	  for python in $(CANDIDATES); do \
	    version=$$(version_of "$$python") || continue; \
	    if ! fits "$$version"; then seen="$$seen, $$python is $$version"; \
	    elif ! "$$python" -c 'import venv, ensurepip' 2>/dev/null; then \
	      seen="$$seen, $$python ($$version) lacks the venv module (Debian, Ubuntu: apt install python$$version-venv)"; \
	    else chosen=$$python; break; fi; \
	  done; \
	  if [ -z "$$chosen" ]; then \
	    echo "error: no usable Python$${seen:-, none of \"$(CANDIDATES)\" runs}; install Python 3.12, 3.11 or 3.13," \
	      "or name one: make PYTHON=PATH" >&2; exit 2; \
	  fi; \
	  echo "Making .venv with $$chosen ($$version)"; \
	  "$$chosen" -m venv --clear .venv; \
	fi
	@$(ACTIVATED) python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-build.txt
	@touch $@

# The requirements of extras of pyproject.toml, one a line.
extras = $(ACTIVATED) python -c "import sys, tomllib; \
  extras = tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']; \
  print(*[line for name in sys.argv[1:] for line in extras[name]], sep='\n')" $(1)

# Pinned versions stay, unless UV_FLAGS says otherwise (--upgrade, --upgrade-package NAME).
requirements: .venv/.tools
	@$(ACTIVATED) $(COMPILE) pyproject.toml --extra dev --output-file requirements.txt
	@$(call extras,slurm kubernetes) | $(ACTIVATED) $(COMPILE) - --constraint requirements.txt --output-file requirements-cluster.txt
	@$(call extras,docs) | $(ACTIVATED) $(COMPILE) - --constraint requirements.txt --output-file requirements-docs.txt
	@printf 'setuptools\nuv\n' | $(ACTIVATED) $(COMPILE) - --constraint requirements.txt --output-file requirements-build.txt

clean:
	@rm -rf build/docs
	@if [ -d results ]; then \
	  find results -mindepth 1 -maxdepth 1 ! -name reference ! -name README.md -exec rm -rf {} +; fi
	@rm -rf .snakemake
	@if [ -d results/reference ]; then find results/reference -name '.*.part' -prune -exec rm -rf {} +; fi
	@if [ -d "$(CACHE)" ]; then find "$(CACHE)" -name '.*.part' -type f -mmin +1440 -exec rm -f {} +; fi

distclean: clean
	@rm -rf .venv *.egg-info
