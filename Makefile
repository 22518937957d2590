# What a newcomer needs: `make run` and `make test`. Everything is installed
# into .venv; nothing outside this folder is touched.

PYTHON = python3
VENV = .venv
BIN = $(VENV)/bin
CONSTRAINTS =
# Tests at once: one more than there are processors, since many of them wait.
JOBS = $(shell echo $$(($$(nproc) + 1)))
# All tests but those with a daemon, a browser or other programs.
QUICK = $(filter-out filebucket/test/whole filebucket/test/__%, \
    $(wildcard filebucket/test/*))
# Where roots of Debian 13 are kept, 1 GB of them.
DEBIAN_ROOTS = $(HOME)/.cache/file-bucket

.PHONY: run test coverage lint format bench bench-full proofs proofs-quick \
    wheel deb check-deb check-deb-tools clean

run: $(VENV)/installed
	$(BIN)/twistd -n --pidfile= filebucket --config config.json

test: $(VENV)/installed
	$(BIN)/python -m twisted.trial --jobs=$(JOBS) --temp-directory=$(VENV)/trial \
	    filebucket bench proofs

# What these tests leave out is more than pyproject.toml allows: then it fails.
coverage: $(VENV)/installed
	COVERAGE_FILE=$(VENV)/coverage $(BIN)/coverage run \
	    -m twisted.trial --temp-directory=$(VENV)/trial $(QUICK)
	COVERAGE_FILE=$(VENV)/coverage $(BIN)/coverage report --show-missing

lint: $(VENV)/linters
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --cache-dir=$(VENV)/mypy
	$(BIN)/lint-imports --cache-dir=$(VENV)/imports
	for page in *.rst */*.rst; do \
	    $(BIN)/python -m docutils --halt=2 --writer=null $$page || exit 1; done
	if command -v shellcheck >/dev/null; then \
	    shellcheck -x hooks/*.sh .ci/run .ci/deb .ci/check-deb* .ci/check-wheel \
	        debian/file-bucket.p* debian/tests/s*; fi

format: $(VENV)/linters
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Needs a C compiler, libssl-dev, curl, openssl and nginx; takes 8 minutes, or half
# an hour in full.
bench bench-full: $(VENV)-bench/installed
	$(VENV)-bench/bin/python -m bench $(if $(filter bench-full,$@),--full)

# Needs root, strace, e2fsprogs, xfsprogs, btrfs-progs, bindfs and iproute2; takes an
# hour and a half.
proofs: $(VENV)-proofs/installed
	$(VENV)-proofs/bin/python -m proofs

# Those that are quick, need nothing but root and strace, and use loopback only.
proofs-quick: $(VENV)/installed
	$(BIN)/python -m proofs --quick order-unnamed order-no-directory-sync \
	    kill-unnamed kill-catalogue kill-under-load faults-unnamed races-one-wins \
	    races-rename fuzz fuzz-contents reloads

wheel: $(VENV)/installed
	rm -f dist/*.whl
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps \
	    --wheel-dir dist .
	.ci/check-wheel dist/*.whl

# All need root, and Debian's registry; 3 minutes the first time, then 20 seconds, one
# minute and three.
deb:
	.ci/deb $(DEBIAN_ROOTS) dist

check-deb: deb
	.ci/check-deb $(DEBIAN_ROOTS) dist/file-bucket_*_all.deb

check-deb-tools: deb
	.ci/check-deb-tools $(DEBIAN_ROOTS) dist

clean:
	rm -rf .venv* .hypothesis _trial_temp* build dist .ruff_cache .mypy_cache .coverage*
	find . -name __pycache__ -prune -exec rm -rf {} +
	rm -f twisted/plugins/dropin.cache

$(VENV)/installed: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check \
	    $(addprefix --constraint ,$(CONSTRAINTS)) --editable '.[test]'
	touch $@

$(VENV)-bench/installed $(VENV)-proofs/installed: $(VENV)-%/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)-$*
	$(VENV)-$*/bin/pip install --quiet --disable-pip-version-check --editable '.[$*]'
	touch $@

$(VENV)/linters: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test,lint]'
	touch $@
