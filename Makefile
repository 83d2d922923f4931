# Every target is complete in itself and safe to repeat: it first makes ready what it needs
# (workshop/setup.sh, which does nothing the second time), then runs one command from .venv.

# Another project's Python settings are no concern here.
unexport PYTHONDONTWRITEBYTECODE PYTHONHOME PYTHONPATH VIRTUAL_ENV
MAKEFLAGS += --no-print-directory
BIN := .venv/bin
TESTS := $(addprefix tests/,notebooks integration contract browser unit)

.DEFAULT_GOAL := help
.PHONY: help run test up down status doctor reset lab lint format unit clean setup setup-tests venv

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

run: setup ## all lessons on real servers, then one report: build/report/index.html
	@$(BIN)/workshop exec -- $(BIN)/python -m workshop.report

# Two processes, each test file in one of them: most tests wait for servers. The lessons, which take longest, begin.
test: setup-tests lint ## lint, then all tests, on real servers
	@$(BIN)/workshop exec -- $(BIN)/pytest $(TESTS) --numprocesses 2 --dist loadfile --no-loadscope-reorder

up: setup ## start the servers and leave them running
	@$(BIN)/workshop up

down: venv ## stop the servers; what they hold stays
	@$(BIN)/workshop down

status: venv ## what every server is doing, and where
	@$(BIN)/workshop status

doctor: venv ## what works, what does not, and what to do about it
	@$(BIN)/workshop doctor

reset: venv ## drop every namespace that notebooks, tests and benchmarks left behind
	@$(BIN)/workshop reset

lab: setup ## JupyterLab on the notebooks, with the stack up
	@$(BIN)/workshop exec -- $(BIN)/jupyter-lab --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate \
		$(if $(filter 0,$(shell id -u)),--allow-root) notebooks

lint: venv ## ruff, mypy, and the layers of the architecture
	@$(BIN)/ruff check && $(BIN)/ruff format --check
	@$(BIN)/mypy && $(BIN)/lint-imports

format: venv ## rewrite the code in the house style
	@$(BIN)/ruff check --fix && $(BIN)/ruff format

unit: venv ## the tests that need no servers
	@$(BIN)/pytest tests/unit

clean: ## stop the servers, and remove .venv, build/ and all caches from the checkout
	-@test ! -x $(BIN)/workshop || $(BIN)/workshop down
	@rm -rf .venv build dist .*_cache .hypothesis && find . -name __pycache__ -prune -exec rm -rf {} +

setup: ## install what is missing, and nothing else
	@workshop/setup.sh servers

setup-tests:
	@workshop/setup.sh tests

venv:
	@workshop/setup.sh venv
