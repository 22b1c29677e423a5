#!/usr/bin/env bash
# Installs what is missing, builds program and tests, and runs the tests.
#   scripts/test.sh [ctest arguments]      e.g. scripts/test.sh -L unit
# Outside data is looked for under QLORA_GOLDENS (default ../shared/goldens) and QLORA_TEST_DATA (../shared/data).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/packages.sh
# shellcheck disable=SC2086
scripts/install_packages.sh $QLORA_BUILD_PACKAGES $QLORA_TEST_PACKAGES
cmake --preset release -DQLORA_TESTS=ON > build.log 2>&1 || { cat build.log; exit 1; }
rm -f build.log
cmake --build --preset release
log=$(mktemp)
status=0
ctest --test-dir build --output-on-failure -j "$(nproc)" --no-tests=error "$@" | tee "$log" || status=$?
golden_skipped=$(ctest --test-dir build -N -L golden 2>/dev/null | sed -n 's/^ *Test *#[0-9]*: //p' | while read -r name; do
  grep -F -- "$name" "$log" | grep -q 'Skipped' && echo x; done | wc -l) || true
golden_all=$(ctest --test-dir build -N -L golden 2>/dev/null | sed -n 's/^Total Tests: //p')
passed=$(grep -cE ' Passed ' "$log" || true)
skipped=$(grep -cE '\*\*\*Skipped' "$log" || true)
failed=$(grep -cE '\*\*\*(Failed|Timeout|Exception|Not Run)' "$log" || true)
rm -f "$log"
echo "golden tests: $((golden_all - golden_skipped)) run, $golden_skipped skipped"
echo "$passed passed, $failed failed, $skipped skipped"
exit $status
