#!/usr/bin/env bash
# Builds with a sanitizer and runs unit tests, and fails on any report.
#   scripts/sanitize.sh address           out-of-bounds, use after free, leaks, and undefined behaviour, of every
#                                         level and of the program that the tests of experiments start: build-asan
#   scripts/sanitize.sh undefined         the same build: both are compiled in together
#   scripts/sanitize.sh thread            races, of the levels that compute on several threads: build-tsan
#   scripts/sanitize.sh                   all
#   scripts/sanitize.sh address kernels   some levels only
# Tests with outside data and slow ones are left out: they compute the same things at length.
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/.."
. scripts/packages.sh

kind=${1:-all}
case "$kind" in
  address | undefined) kinds=(asan) ;;
  thread) kinds=(tsan) ;;
  all) kinds=(asan tsan) ;;
  -h | --help) sed -n '2,9s/^# \{0,1\}//p' scripts/sanitize.sh; exit 0 ;;
  *) echo "sanitize: expected address, undefined or thread, found $1" >&2; exit 2 ;;
esac
asan=(base text io tensor tape quant kernels ops lora train models datasets eval results experiments)
tsan=(base tensor tape quant kernels ops lora train models eval)
if [ $# -gt 1 ]; then
  asan=("${@:2}")
  tsan=("${@:2}")
fi
# shellcheck disable=SC2086
scripts/install_packages.sh $QLORA_BUILD_PACKAGES $QLORA_TEST_PACKAGES

# A test asks for more memory than there is, and expects the error.
export ASAN_OPTIONS=halt_on_error=1:detect_leaks=1:allocator_may_return_null=1
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1:allocator_may_return_null=1
failed=()
for kind in "${kinds[@]}"; do
  declare -n levels=$kind
  targets=("${levels[@]/#/qlora_}")
  cmake --preset "$kind" -DQLORA_TESTS=ON > /dev/null
  cmake --build "build-$kind" --target "${targets[@]/%/_test}"
  for level in "${levels[@]}"; do
    echo "== $kind: $level"
    "build-$kind/bin/qlora_${level}_test" '~[golden]~[slow]' || failed+=("$kind: $level")
  done
done
[ ${#failed[@]} -eq 0 ] || { printf 'sanitize: %s failed\n' "${failed[@]}" >&2; exit 1; }
