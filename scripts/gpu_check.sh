#!/usr/bin/env bash
# What the kernels show on a machine with a GPU, in one go: builds the CUDA plug-in and the tests of kernels, holds
# every kernel to the case table (and to the same bits again and at any alignment), measures, runs compute-sanitizer
# where it is allowed, and writes results/gpu/DATE-DEVICE.txt.
#   scripts/gpu_check.sh                    needs nvcc and a device of compute capability 8.0 or more
#     --emulated                            the same on the emulated GPU, at small sizes: checks this script
#     --out FILE                            where the report goes
#     --build DIR                           where it builds (default build-gpu)
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/.."
. scripts/packages.sh

emulated=0 out="" build=build-gpu
while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help)
      sed -n '2,8s/^# \{0,1\}//p' scripts/gpu_check.sh
      exit 0 ;;
    --emulated) emulated=1; shift ;;
    --out | --build)
      [ $# -ge 2 ] || { echo "gpu_check: $1 needs a value" >&2; exit 2; }
      if [ "$1" = --out ]; then out=$2; else build=$2; fi
      shift 2 ;;
    *)
      echo "gpu_check: unknown argument $1; see --help" >&2
      exit 2 ;;
  esac
done

options=(-DCMAKE_BUILD_TYPE=Release -DQLORA_TESTS=ON -DQLORA_BENCH=ON)
if [ "$emulated" = 1 ]; then
  backend=cuda-emulated device=emulated
  options+=(-DQLORA_CUDA=OFF)
else
  backend=cuda
  command -v nvidia-smi > /dev/null || { echo "gpu_check: no nvidia-smi, so no NVIDIA driver here" >&2; exit 1; }
  # The program takes CUDA's first device: the same that nvidia-smi is asked about.
  export CUDA_DEVICE_ORDER=PCI_BUS_ID
  card=${CUDA_VISIBLE_DEVICES:-0}
  card=${card%%,*}
  device=$(nvidia-smi -i "$card" --query-gpu=name --format=csv,noheader | tr -cs '[:alnum:]' '-' | sed 's/-$//')
  capability=$(nvidia-smi -i "$card" --query-gpu=compute_cap --format=csv,noheader | tr -d .)
  options+=(-DQLORA_CUDA=ON "-DCMAKE_CUDA_ARCHITECTURES=$capability-real")
fi
mkdir -p results/gpu "$build"
[ -n "$out" ] || out=results/gpu/$(date -u +%Y-%m-%d)-$device.txt
report=$build/report.txt
: > "$report"
keep_report() {  # however this ends
  cp "$report" "$out.part" && mv "$out.part" "$out" && echo "written: $out" >&2
}
trap keep_report EXIT

failed=0
say() { echo "$*" | tee -a "$report"; }
step() {  # NAME COMMAND...: runs it, notes how it ended and how long it took, keeps its output
  local name=$1 start=$SECONDS rc=0
  shift
  "$@" > "$build/$name.log" 2>&1 || rc=$?
  if [ "$rc" -eq 0 ]; then
    say "$name: passed in $((SECONDS - start)) s"
  else
    failed=1
    say "$name: FAILED ($rc) after $((SECONDS - start)) s"
    tail -n 25 "$build/$name.log" | tee -a "$report"
  fi
}

say "qlora $(git describe --always --dirty 2> /dev/null || echo 'without git'), $(date -u +%Y-%m-%dT%H:%MZ)"
if [ "$emulated" = 0 ]; then
  say "$(nvidia-smi -i "$card" --query-gpu=name,driver_version,memory.total,compute_cap --format=csv,noheader)"
  say "$(nvcc --version | grep release)"
fi
# shellcheck disable=SC2086
scripts/install_packages.sh $QLORA_BUILD_PACKAGES $QLORA_TEST_PACKAGES || say "packages: not installed, going on"
step configure cmake -S . -B "$build" -G Ninja "${options[@]}"
targets=(qlora_kernels_test qlora_device_bench)
[ "$emulated" = 1 ] || targets+=(qlora_cuda)
step build cmake --build "$build" --target "${targets[@]}"
[ "$failed" = 0 ] || exit 1

test=$build/bin/qlora_kernels_test
export QLORA_CASES_BACKEND=$backend
step parity "$test" -w NoTests "The device of a GPU agrees*"
step same-bits "$test" -w NoTests "The device of a GPU has the same bits*"

bench=("$build/bin/qlora_device_bench" "$backend")
[ "$emulated" = 0 ] || bench+=(--quick)
step measure "${bench[@]}"
cat "$build/measure.log" >> "$report"
cat "$build/measure.log"

sanitize() {  # TOOL: its summary counts errors, racecheck's hazards; without one it did not run
  local rc=0 summary
  timeout 90 compute-sanitizer --tool "$1" --error-exitcode 9 "$test" -w NoTests "The device of a GPU runs*" \
    > "$build/$1.log" 2>&1 || rc=$?
  summary=$(grep -E '(ERROR|RACECHECK) SUMMARY' "$build/$1.log" | tail -n 1 | sed 's/^=*//') || true
  if [ -z "$summary" ]; then
    say "compute-sanitizer $1: refused or out of time here ($rc): $(tail -n 1 "$build/$1.log")"
  elif grep -qE ' 0 (errors|hazards)' <<< "$summary"; then
    say "compute-sanitizer $1:$summary"
  else
    failed=1
    say "compute-sanitizer $1:$summary"
    tail -n 25 "$build/$1.log" | tee -a "$report"
  fi
}
if [ "$emulated" = 1 ]; then
  step cases "$test" -w NoTests "The device of a GPU runs*"
elif command -v compute-sanitizer > /dev/null; then
  for tool in memcheck racecheck synccheck initcheck; do sanitize "$tool"; done
else
  say "compute-sanitizer: not there"
fi

exit "$failed"
