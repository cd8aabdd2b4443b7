# Two commands do everything: `make demo` shows reddwarf at work, `make test` runs every test.
# Both install what they need from the distribution's packages (as root or through sudo).

CARGO ?= cargo
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: help demo test setup build lint unit e2e test-install illumos illumos-proto illumos-package bench bench-pods bench-logs bench-api bench-pull bench-services bench-dns dns-systemd fuzz vm-cgroup2 vm-zfs install

help:
	@sed -n 's/^## //p' Makefile

## make demo      build, run a pod from a file, change it, remove it (about 3 minutes the first time)
demo: setup
	@$(CARGO) build --quiet --locked -p reddwarfd -p reddwarfctl
	@$(SUDO) ./examples/demo.sh

## make test      formatting, lints, every unit, simulation and end-to-end test, types for illumos
# As root the unit target runs the tests with real containers as well; for others they follow through sudo.
test: setup lint unit $(if $(SUDO),e2e) test-install illumos

## make setup     install the distribution packages that building and testing need
setup:
	@./.ci/setup
	@./.ci/kubectl
	@./.ci/registry

## make build     release binaries in target/release
build: setup
	$(CARGO) build --locked --release -p reddwarfd -p reddwarfctl

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

unit:
	$(CARGO) test --locked --workspace --no-fail-fast

## make e2e       only the tests that need root: real containers, the whole daemon
e2e:
	./vm-tests/run.sh

# The programs are those that the tests were built with.
test-install:
	@./.ci/test-install

## make illumos   types and lints of everything but the Linux host for illumos (says so where it can't be had)
illumos:
	@./.ci/illumos-check clippy

## make illumos-proto   on illumos: all files of the IPS package below PROTO, its whole manifest as PROTO.p5m
illumos-proto: PROTO ?= target/proto
illumos-proto: build
	SYSTEM=SunOS DESTDIR="$(PROTO)" BINARIES="$(or $(CARGO_TARGET_DIR),target)/release" ./.ci/install /usr
	(cat smf/reddwarf.p5m && cd "$(PROTO)" && find usr/share -type f | sort | while read -r file; do \
		grep -qF "path=$$file " "$(CURDIR)/smf/reddwarf.p5m" || echo "file path=$$file owner=root group=bin mode=0444"; \
	done) >"$(PROTO).p5m"

## make illumos-package on illumos: a tarball as pkgsrc's pkg_add takes it, in PACKAGES (default target/packages)
illumos-package: build
	BINARIES="$(or $(CARGO_TARGET_DIR),target)/release" ./.ci/package-illumos "$(or $(PACKAGES),target/packages)"

## make fuzz      every fuzz target for a minute, or FUZZ_SECONDS (installs cargo-fuzz when it is not there)
# The variable lets a stable toolchain take the sanitizer's flags.
fuzz:
	@command -v cargo-fuzz >/dev/null || $(CARGO) install --locked cargo-fuzz
	for target in $$($(CARGO) fuzz list); do \
		RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run $$target -- -max_total_time=$(or $(FUZZ_SECONDS),60) -rss_limit_mb=4096 || exit; done

## make vm-cgroup2  enforced limits on cgroup v2, in an emulated machine (docs/vm-tests.md)
vm-cgroup2:
	@./vm-tests/vm.py cgroup2

## make vm-zfs    the storage engines and pods' roots on OpenZFS, in an emulated machine (docs/vm-tests.md)
vm-zfs:
	@./vm-tests/vm.py zfs

## make bench     print the figures that docs/performance.md quotes (release build; BENCH=--podman compares)
bench: build
	$(SUDO) ./vm-tests/bench.py $(BENCH)

## make bench-pods 100 pods from one `kubectl apply` to all Ready (release build)
bench-pods: build
	$(SUDO) ./vm-tests/bench.py --apply $(BENCH)

## make bench-services  services beside their budgets: throughput, readiness to packets, large tables, flushes (release build; 2 minutes)
bench-services: build
	$(SUDO) ./vm-tests/bench-services.py $(or $(CARGO_TARGET_DIR),target)/release

## make bench-logs how fast logs are read and followed through the API (release build)
bench-logs: build
	$(SUDO) ./vm-tests/bench.py --logs

## make bench-pull pulling and unpacking 200 MB from a registry on this machine, beside podman (release build)
bench-pull: build
	$(SUDO) env CARGO_TARGET_DIR="$(or $(CARGO_TARGET_DIR),target)" ./vm-tests/bench-pull.sh "$(or $(CARGO_TARGET_DIR),target)/release"

## make bench-api what the Kubernetes API costs under load, beside what the reference costs (release build)
bench-api: build
	$(CARGO) run --quiet --locked --release -p reddwarf-api --example api_bench -- "$(or $(CARGO_TARGET_DIR),target)/release/reddwarfd"

## make bench-dns the name server beside those of Debian, with the same names (release build)
bench-dns: setup
	$(CARGO) build --quiet --locked --release -p reddwarf-network --example dns_bench
	$(SUDO) ./vm-tests/bench-dns.py "$(or $(CARGO_TARGET_DIR),target)/release/examples/dns_bench"

## make dns-systemd sockets over restarts and systemd-resolved, under a real systemd in a container (a minute the first time)
dns-systemd:
	$(CARGO) build --quiet --locked -p reddwarfd -p reddwarfctl
	$(SUDO) ./vm-tests/dns-systemd.sh "$(or $(CARGO_TARGET_DIR),target)/debug"

## make install   install programs, unit, man pages, completions under PREFIX (default /usr/local), below DESTDIR
install: build
	$(if $(DESTDIR),,$(SUDO)) env DESTDIR="$(DESTDIR)" BINARIES="$(or $(CARGO_TARGET_DIR),target)/release" \
		./.ci/install "$(or $(PREFIX),/usr/local)"
