# The commands of this project; `make` alone lists them, docs/development.md tells more.

# The interpreter to develop with, 3.10 or newer.
PYTHON ?= python3
# Where the programs go on a system: make install DESTDIR=/tmp/root PREFIX=/usr
PREFIX ?= /usr
# Where zsh looks for completions, below PREFIX/share: that of Debian does so in zsh/vendor-completions below /usr.
ZSH ?= zsh/site-functions

# What dist, and the packages, are made of.
COMMIT ?= HEAD

VENV := .venv
BIN := $(VENV)/bin
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' ovirt_imageio/version.py)
NAME := ovirt-imageio-$(VERSION)
# Where the interpreter is that runs the installed programs, and where it looks for packages below PREFIX.
PYTHON_PATH = $(shell $(PYTHON) -c 'import sys; print(sys.executable)')
PYTHON_LIB = $(shell $(PYTHON) -c 'import site; \
    print(*[path for path in site.getsitepackages() if path.startswith("$(PREFIX)/lib/")][:1])')
# rpm asks only its own database what is installed; on Debian that one is empty.
RPM_OPTIONS := $(if $(wildcard /etc/debian_version),--nodeps)
# The files that depend on this checkout.
DEVELOPMENT := $(CURDIR)/.cache/development
PROGRAMS := daemon/ovirt-imageio daemon/ovirt-imageioctl daemon/ovirt-img

export PYTHON
export PIP_DISABLE_PIP_VERSION_CHECK := 1
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
# The steps build on one another.
.NOTPARALLEL:

.PHONY: help
help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1\t\2/p' Makefile | expand -t 18

## Work

.PHONY: test
test: $(VENV)/ready  ## the tests of what changed since the last commit; T=auth: of a folder, T=all: all without storage
	@$(BIN)/python test/tools/quick.py $(T)

.PHONY: check
check: system-check $(VENV)/ready storage  ## everything that must be good before a commit: format, lint, types, tests
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/coverage erase
	$(BIN)/python test/tools/pythons.py
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report
	@echo "The whole suite:"
	@tail -qn 1 .cache/pytest-*.log

.PHONY: soak
soak: system-check system-soak $(VENV)/ready  ## hunt for longer than check does; T=torture: one part, T='torture --help': its options
	$(BIN)/python test/soak/run.py $(T)

.PHONY: mutants
mutants: $(VENV)/ready  ## which small faults the tests of pure modules do not notice; T=nbd/wire: of one module
	$(BIN)/python test/tools/mutants.py $(T)

.PHONY: fresh
fresh: system-fresh  ## try the two commands of the README on minimal systems; ONLY=trixie: one, STEPS=run: no check
	test/tools/fresh $(ONLY)

.PHONY: vm
# With what is not committed yet of the files that git knows.
vm: COMMIT = $(or $(shell git stash create),HEAD)
vm: system-vm $(VENV)/ready deb rpm  ## run the tests of test/machine in a guest with systemd; T=restart: some, T=shell: look around
	@$(BIN)/python test/tools/vm/run.py $(T)

.PHONY: scale
scale: system-check system-scale $(VENV)/ready  ## kill daemons that serve a Ceph cluster behind HAProxy, while transfers run; T=disks: iSCSI and NFS
	$(BIN)/python test/tools/scale.py $(T)

.PHONY: format
format: $(VENV)/ready  ## format the code, and fix what the linter can fix
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

.PHONY: run
run: $(VENV)/programs  ## serve demo.qcow2 over HTTPS; Ctrl-C stops it
	exec $(BIN)/ovirt-imageio serve demo.qcow2 --demo

# Modules are compiled before, as those of an installed package are.
.PHONY: bench
bench: system-bench $(VENV)/ready  ## measure; ONLY=name picks some, PLOT=1 draws docs/performance
	$(BIN)/python -m compileall -q ovirt_imageio
	$(BIN)/python test/bench/run.py $(if $(PLOT),--plot) $(ONLY)

.PHONY: recording
recording: system-check $(VENV)/ready  ## record serve and download again: docs/images/serve.svg
	$(BIN)/python test/tools/recording.py

.PHONY: storage
storage: system-check $(VENV)/ready  ## make the loop devices and file systems that tests use
	@$(BIN)/python test/real/storage.py create

.PHONY: clean-storage
clean-storage: $(VENV)/ready  ## delete them
	$(BIN)/python test/real/storage.py delete

.PHONY: clean
clean:  ## delete everything that was built, but for the storage of tests
	rm -rf .venv* .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

## Release

# An archive that was unpacked makes the same one again: packages can be made of it, too.
.PHONY: dist
dist:  ## make the archive of the last commit: dist/ovirt-imageio-VERSION.tar.gz
	mkdir -p dist
	if [ -e .git ]; then \
	    git archive --format=tar.gz --prefix=$(NAME)/ --output=dist/$(NAME).tar.gz $(COMMIT); \
	else \
	    tar -czf dist/$(NAME).tar.gz --exclude=__pycache__ $(addprefix --exclude=./,build dist .cache .venv*) \
	        --transform='s|^\.|$(NAME)|' .; \
	fi

.PHONY: rpm
rpm: system-rpm dist  ## make the packages of the last commit: build/rpm/
	rpmbuild -ta dist/$(NAME).tar.gz --define '_topdir $(CURDIR)/build/rpm' $(RPM_OPTIONS)

# The recipe is where Debian looks for it only while the packages are made. Of what is needed, Debian's tools know no less
# than a compiler, which nothing uses here; system-deb has looked.
.PHONY: deb
deb: system-deb dist  ## make the Debian packages of the last commit: build/deb/
	rm -rf build/deb
	mkdir -p build/deb
	tar -xf dist/$(NAME).tar.gz -C build/deb
	cp -r build/deb/$(NAME)/data/debian build/deb/$(NAME)/
	cd build/deb/$(NAME) && dpkg-buildpackage --no-check-builddeps --build=binary --no-sign
	lintian --allow-root --fail-on=error,warning build/deb/*.changes

# crun does not run where there are control groups of both versions, unless it sees those of one only.
.PHONY: container
container: system-image $(VENV)/ready deb  ## make a container image of the Debian packages, and try it: build/container/
	test/tools/container $(VERSION)
	IMAGEIO_CONTAINER=$(CURDIR)/build/container/$(NAME).tar unshare --mount --propagation=private sh -c \
	    'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$$@"' sh $(BIN)/pytest -ra test/packaging/container_test.py

# systemd takes its files from below any PREFIX; firewalld, and the daemon for what other packages configure, from below
# /usr alone.
.PHONY: install
install:  ## install everything below DESTDIR
	@test -n "$(PYTHON_LIB)" || { echo "$(PYTHON_PATH) looks for packages nowhere below $(PREFIX)/lib:" \
	    "choose with PYTHON=/usr/bin/python3, or with another PREFIX" >&2; exit 1; }
	install -d $(addprefix $(DESTDIR),$(PYTHON_LIB) /etc/ovirt-imageio/conf.d /usr/lib/ovirt-imageio/conf.d)
	install -d $(DESTDIR)/var/log/ovirt-imageio
	cd ovirt_imageio && find . -name '*.py' -o -name py.typed -o -name '*.html' | sort | \
	    xargs -I @ install -D -m 644 @ $(DESTDIR)$(PYTHON_LIB)/ovirt_imageio/@
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/bin $(PROGRAMS)
	sed -i '1s|^#!.*|#!$(PYTHON_PATH)|' $(addprefix $(DESTDIR)$(PREFIX)/bin/,$(notdir $(PROGRAMS)))
	install -m 644 conf/README $(DESTDIR)/etc/ovirt-imageio/README
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/lib/systemd/system data/ovirt-imageio.service data/ovirt-imageio.socket
	sed -i 's|/usr/bin/ovirt|$(PREFIX)/bin/ovirt|' $(DESTDIR)$(PREFIX)/lib/systemd/system/ovirt-imageio.service
	install -D -m 644 data/sysusers.conf $(DESTDIR)$(PREFIX)/lib/sysusers.d/ovirt-imageio.conf
	install -D -m 644 data/tmpfiles.conf $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/ovirt-imageio.conf
	install -D -m 644 -t $(DESTDIR)/usr/lib/firewalld/services data/firewalld/*.xml
	$(PYTHON) data/describe.py $(DESTDIR)$(PREFIX)/share $(ZSH)

.PHONY: install-dev
install-dev: has-engine-prefix $(VENV)/programs  ## use this checkout as the proxy of an engine below ENGINE_PREFIX
	install -d $(addprefix $(ENGINE_PREFIX)/,bin etc/ovirt-imageio/conf.d var/run/ovirt-imageio)
	sed 's|/etc/pki|$(ENGINE_PREFIX)&|' conf/50-engine.conf >$(ENGINE_PREFIX)/etc/ovirt-imageio/conf.d/50-engine.conf
	sed 's|@DIR@|$(ENGINE_PREFIX)/var/run/ovirt-imageio|' conf/99-development.conf \
	    >$(ENGINE_PREFIX)/etc/ovirt-imageio/conf.d/99-development.conf
	ln -sf $(CURDIR)/$(BIN)/ovirt-imageio $(CURDIR)/$(BIN)/ovirt-imageioctl $(ENGINE_PREFIX)/bin/
	@echo "Now run: $(ENGINE_PREFIX)/bin/ovirt-imageio -c $(ENGINE_PREFIX)/etc/ovirt-imageio"

.PHONY: generated-files
generated-files: $(VENV)/programs $(DEVELOPMENT)/ready  ## make what it takes to run the daemon from this checkout
	@echo "Now run: $(BIN)/ovirt-imageio -c $(DEVELOPMENT)"

## What the others need

SYSTEMS := $(addprefix system-,run develop check soak scale bench rpm deb fresh vm image)

.PHONY: has-engine-prefix $(SYSTEMS)
has-engine-prefix:
	@test -n "$(ENGINE_PREFIX)" || { echo "Say where the engine is: make install-dev ENGINE_PREFIX=DIR" >&2; exit 1; }

# What the system must have; a quick look when nothing is missing.
$(SYSTEMS): system-%:
	@test/tools/packages $*

# The environment, made again when what it is made of changes: first with the programs alone, which need no compiler,
# then with what development needs.
$(VENV)/programs: setup.py pyproject.toml | system-run
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	mkdir -p .cache
	touch $@

$(VENV)/ready: $(VENV)/programs | system-develop
	$(BIN)/pip install --quiet --editable '.[test,check]'
	@! command -v npm >/dev/null || npm install --silent --no-audit --no-fund --engine-strict --prefix .cache/node \
	    @redocly/cli@2.77.0 || echo "Without redocly, which wants a newer Node.js: its test is skipped"
	touch $@

# The host's configuration with the paths of this checkout, and with a certificate that signs itself.
$(DEVELOPMENT)/ready: conf/60-vdsm.conf conf/99-development.conf Makefile
	mkdir -p $(addprefix $(DEVELOPMENT)/,conf.d run pki/keys pki/certs)
	sed 's|/etc/pki/vdsm|$(DEVELOPMENT)/pki|' conf/60-vdsm.conf >$(DEVELOPMENT)/conf.d/60-vdsm.conf
	sed 's|@DIR@|$(DEVELOPMENT)/run|' conf/99-development.conf >$(DEVELOPMENT)/conf.d/99-development.conf
	openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=localhost \
	    -addext subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1 -addext keyUsage=critical,digitalSignature,keyCertSign \
	    -keyout $(DEVELOPMENT)/pki/keys/vdsmkey.pem -out $(DEVELOPMENT)/pki/certs/vdsmcert.pem 2>/dev/null
	cp $(DEVELOPMENT)/pki/certs/vdsmcert.pem $(DEVELOPMENT)/pki/certs/cacert.pem
	touch $@
