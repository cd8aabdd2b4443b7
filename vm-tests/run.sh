#!/usr/bin/env bash
# Builds the test programs that need root and runs them as root: real hosts, real containers, the whole daemon.
#
#   vm-tests/run.sh [ARGUMENTS OF THE TEST RUNNER]     e.g. vm-tests/run.sh pods::
#
# Called as a user it builds as that user and runs through sudo. E2E_THREADS (default 2) tests run at a time.
set -euo pipefail
cd "$(dirname "$0")/.."
as_root=(env)
[[ $(id -u) = 0 ]] || as_root=(sudo env "PATH=$PATH:/usr/sbin:/sbin")
for name in REDDWARF_KEEP RUST_LOG RUST_BACKTRACE; do
  [[ -z ${!name:-} ]] || as_root+=("$name=${!name}")
done

# The whole workspace, as `make unit` builds it: other sets of crates would build dependencies with other features again.
programs=$(cargo test --locked --workspace --no-run --message-format=json-render-diagnostics |
  jq -r 'select(.reason == "compiler-artifact" and .profile.test and .executable)
         | select(.target.name == "e2e" or .target.name == "illumos" or .target.name == "reddwarf_linux" or (.manifest_path | test("/(linux|illumos)/Cargo.toml$")))
         | "\(.executable) \(.manifest_path | rtrimstr("/Cargo.toml"))"')
[[ $programs ]] || { echo "cargo built no test programs that need root" >&2; exit 1; }
failed=()
while read -r program directory; do
  echo "running $program as root"
  (cd "$directory" && "${as_root[@]}" "$program" --test-threads "${E2E_THREADS:-2}" "$@" </dev/null) || failed+=("$program")
done <<<"$programs"
((${#failed[@]} == 0)) || { printf 'failed: %s\n' "${failed[@]}" >&2; exit 1; }
