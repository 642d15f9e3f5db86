# Everything runs in .venv, which is made and filled when it is missing or pyproject.toml or constraints.txt changed.
PYTHON = $(shell command -v python3.11 || command -v python3)
VENV = .venv
BIN = $(VENV)/bin
INSTALLED = $(VENV)/.installed
DEMO = demo
WORKSPACE = $(DEMO)
PREFECT_PORT = 4200
WORKER_PORT = 4201
MLFLOW_PORT = 5000
SERVICE_PORT =
ARGS =
JOBS = 2
# One thread each: two programs that both wait for two cores take several times as long.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL = help
.PHONY: help demo docs check up down test lint format install soak bench bench-zsl clean

help: ## Show this.
	@echo "make TARGET"
	@sed -n 's/^\([a-z-]*\):.*## /  \1	/p' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## Retrain on the drawn bestiary, in the workspace demo/, and ask for an aye-aye.
	$(BIN)/ayeaye demo $(DEMO)

up: $(INSTALLED) ## Start the platform of WORKSPACE=demo: Prefect server and worker, MLflow, the service; prints their addresses.
	@test -f $(WORKSPACE)/params.yaml || $(BIN)/ayeaye init $(WORKSPACE)
	$(BIN)/ayeaye up --workspace $(WORKSPACE) --prefect-port $(PREFECT_PORT) --worker-port $(WORKER_PORT) \
		--mlflow-port $(MLFLOW_PORT) $(if $(SERVICE_PORT),--service-port $(SERVICE_PORT))

down: $(INSTALLED) ## Stop it.
	$(BIN)/ayeaye down --workspace $(WORKSPACE)

test: lint ## Lint, then run every test but the soak, JOBS at a time; ARGS="-k gate" goes to pytest.
	$(PYTEST) -m "not soak" $(ARGS)

check: lint ## Lint, then run the quick tests.
	$(PYTEST) -m "not slow and not soak" $(ARGS)

lint: $(INSTALLED) ## Check style, types and that files import only downwards.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(INSTALLED) ## Build the documentation into build/site, strictly.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

format: $(INSTALLED) ## Mend what ruff can mend.
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

install: $(INSTALLED) ## Make .venv, with the versions of constraints.txt.

soak: $(INSTALLED) ## Run the long tests: kills, fuzzing, load, promotions under load.
	$(PYTEST) -m soak $(ARGS)

bench: $(INSTALLED) ## Time retraining, embedding (on a GPU, too), serving and promotions under load, measure the bestiary, the gate and the drift watch.
	@for program in retrain embedding cuda serving rolling bestiary release drift; do program=bench/$$program.py; \
		echo "$$program"; $(BIN)/python "$$program" $(ARGS) || exit 1; \
	done

bench-zsl: $(INSTALLED) ## Measure every mapper, class space and hub correction; goes on where it stopped. Hours.
	$(BIN)/python bench/zsl.py $(ARGS)

clean: ## Remove .venv, the demo and what the tools keep; workspaces and data stay.
	rm -rf $(VENV) $(DEMO) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(INSTALLED): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
		|| { echo "Python 3.11 is needed, $(PYTHON) is another one: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@test -x $(BIN)/pip || "$(PYTHON)" -m venv $(VENV) \
		|| { rm -rf $(VENV); echo "No venv can be made: on Debian, apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing into $(VENV); the first time this takes some minutes."
	PIP_CONSTRAINT=constraints.txt $(BIN)/pip install -qq --editable '.[dev]'
	@touch $@
