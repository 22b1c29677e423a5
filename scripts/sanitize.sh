#!/usr/bin/env bash
# Builds with a sanitizer what computes (kernels, the pool of threads, codecs, tape, training of tiny models), runs its
# unit tests, and fails on any report.
#   scripts/sanitize.sh address           out-of-bounds, use after free, leaks, and undefined behaviour: build-asan
#   scripts/sanitize.sh undefined         the same build: both are compiled in together
#   scripts/sanitize.sh thread            races: build-tsan; the same tests
#   scripts/sanitize.sh                   all
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/.."
. scripts/packages.sh

case "${1:-all}" in
  address | undefined) kinds=(asan) ;;
  thread) kinds=(tsan) ;;
  all) kinds=(asan tsan) ;;
  -h | --help) sed -n '2,7s/^# \{0,1\}//p' scripts/sanitize.sh; exit 0 ;;
  *) echo "sanitize: expected address, undefined or thread, found $1" >&2; exit 2 ;;
esac
# shellcheck disable=SC2086
scripts/install_packages.sh $QLORA_BUILD_PACKAGES $QLORA_TEST_PACKAGES

levels=(base tensor tape quant kernels ops lora train models)
targets=("${levels[@]/#/qlora_}")
targets=("${targets[@]/%/_test}")
# A test asks for more memory than there is, and expects the error.
export ASAN_OPTIONS=halt_on_error=1:detect_leaks=1:allocator_may_return_null=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1
failed=()
for kind in "${kinds[@]}"; do
  cmake --preset "$kind" -DQLORA_TESTS=ON > /dev/null
  cmake --build "build-$kind" --target "${targets[@]}"
  for level in "${levels[@]}"; do
    echo "== $kind: $level"
    # Unit tests alone: those with outside data and the slow ones compute the same things at length.
    "build-$kind/bin/qlora_${level}_test" '~[golden]~[slow]' || failed+=("$kind: $level")
  done
done
[ ${#failed[@]} -eq 0 ] || { printf 'sanitize: %s failed\n' "${failed[@]}" >&2; exit 1; }
