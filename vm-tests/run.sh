#!/usr/bin/env bash
# The end-to-end tests with real containers, as root. Built by `make e2e`; arguments go to the test runner.
set -euo pipefail
cd "$(dirname "$0")/.."
test=$(ls -t "${CARGO_TARGET_DIR:-target}"/debug/deps/e2e-* 2>/dev/null | grep -v '\.d$' | head -1)
[[ -x $test ]] || { echo "no end-to-end test program: run make e2e" >&2; exit 1; }
exec "$test" --test-threads "${E2E_THREADS:-2}" "$@"
