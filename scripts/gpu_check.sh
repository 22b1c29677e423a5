#!/usr/bin/env bash
# What the project shows on a machine with a GPU, in one go and in under 9 minutes: builds the CUDA plug-in, holds every
# kernel to the case table (and to the same bits again), training and generation to their laws, measures kernels, whole
# steps, packed runs and token steps, and peers where this machine's Python has them; runs compute-sanitizer where it is
# allowed; writes one report, results/gpu/DATE-DEVICE.txt, with one table and the goals at its end.
#   scripts/gpu_check.sh                    needs nvcc and a device of compute capability 8.0 or more
#     --emulated                            the same on the emulated GPU, at tiny sizes: checks this script
#     --out FILE                            where the report goes
#     --build DIR                           where it builds (default build-gpu)
#     --seconds N                           for all of it (default 540): what there is no time for is left out, and said
# The source tree alone is enough: no build, no git and no models are needed.
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/.."
. scripts/packages.sh

emulated=0 out="" build=build-gpu seconds=540
while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help)
      sed -n '2,11s/^# \{0,1\}//p' scripts/gpu_check.sh
      exit 0 ;;
    --emulated) emulated=1; shift ;;
    --out | --build | --seconds)
      [ $# -ge 2 ] || { echo "gpu_check: $1 needs a value" >&2; exit 2; }
      case "$1" in
        --out) out=$2 ;;
        --build) build=$2 ;;
        *) seconds=$2 ;;
      esac
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
[ -n "$out" ] || out=results/gpu/$(date -u +%Y-%m-%d)-$device.txt
mkdir -p "$build" "$(dirname "$out")"
report=$build/report.txt
rm -rf "$build/rows"
mkdir "$build/rows"
: > "$report"
keep_report() {  # however this ends
  cp "$report" "$out.part" && mv "$out.part" "$out" && echo "written: $out" >&2
}
trap keep_report EXIT

failed=0
say() { echo "$*" | tee -a "$report"; }
section() {  # NAME LIMIT COMMAND...: runs it for LIMIT seconds at most, notes how it ended, keeps its output
  local name=$1 limit=$2 start=$SECONDS rc=0 left=$((seconds - SECONDS))
  shift 2
  if [ "$left" -lt 5 ]; then
    say "$name: left out, no time"
    return 0
  fi
  [ "$limit" -le "$left" ] || limit=$left
  timeout --kill-after=5 "$limit" "$@" > "$build/$name.log" 2>&1 || rc=$?
  if [ "$rc" -eq 0 ]; then
    say "$name: passed in $((SECONDS - start)) s"
  elif [ "$rc" -eq 124 ] || [ "$rc" -eq 137 ]; then
    failed=1
    say "$name: OUT OF TIME after $((SECONDS - start)) s"
  else
    failed=1
    say "$name: FAILED ($rc) after $((SECONDS - start)) s"
    tail -n 25 "$build/$name.log" | tee -a "$report"
  fi
}
measure() {  # NAME LIMIT COMMAND...: a section whose output has rows for the table
  section "$@"
  [ ! -f "$build/$1.log" ] || cp "$build/$1.log" "$build/rows/"
}

say "qlora $(git describe --always --dirty 2> /dev/null || echo 'without git'), $(date -u +%Y-%m-%dT%H:%MZ)"
if [ "$emulated" = 0 ]; then
  say "$(nvidia-smi -i "$card" --query-gpu=name,driver_version,memory.total,compute_cap --format=csv,noheader)"
  say "$(nvcc --version | grep release)"
fi
# shellcheck disable=SC2086
scripts/install_packages.sh $QLORA_BUILD_PACKAGES $QLORA_TEST_PACKAGES || say "packages: not installed, going on"
section configure 60 cmake -S . -B "$build" -G Ninja "${options[@]}"
targets=(qlora_kernels_test qlora_device_bench)
[ "$emulated" = 1 ] || targets+=(qlora_cuda)
section build-kernels 240 cmake --build "$build" --target "${targets[@]}"
[ "$failed" = 0 ] || exit 1

test=$build/bin/qlora_kernels_test
export QLORA_CASES_BACKEND=$backend
section parity $((emulated ? 200 : 90)) "$test" -w NoTests "The device of a GPU agrees*,Every backend draws*"
section same-bits $((emulated ? 400 : 60)) "$test" -w NoTests "The device of a GPU has the same bits*"
bench=("$build/bin/qlora_device_bench" "$backend")
[ "$emulated" = 0 ] || bench+=(--quick)
measure kernels 60 "${bench[@]}"

section build-steps 200 cmake --build "$build" --target qlora_train_test qlora_gpu_bench
if [ -x "$build/bin/qlora_train_test" ]; then
  section laws $((emulated ? 200 : 60)) "$build/bin/qlora_train_test" -w NoTests "Laws on a device*"
  grep -E "same bits|other bits" "$build/laws.log" >> "$report" || true
fi
steps=("$build/bin/qlora_gpu_bench" "$backend")
peer=(python3 scripts/peers/gpu_peer.py)
if [ ! -x "$build/bin/qlora_gpu_bench" ]; then
  say "steps: not built"
elif [ "$emulated" = 1 ]; then
  small=(batch=2 tokens=20 seconds=0 memory=1G lora_r=8)
  measure step-tiny 60 "${steps[@]}" step tiny "${small[@]}" decode=1
  measure step-tiny-paged 60 "${steps[@]}" step tiny "${small[@]}" optim=paged_adamw_32bit gradient_checkpointing=offload
  for graphs in off on; do
    measure "graphs-$graphs-tiny" 60 env "QLORA_CUDA_GRAPHS=$graphs" "${steps[@]}" step tiny "${small[@]}" decode=1
  done
  measure packed-tiny 90 "${steps[@]}" packed tiny "${small[@]}"
else
  measure step-7b 75 "${steps[@]}" step 7b batch=8 tokens=512 decode=1
  measure step-1.1b 30 "${steps[@]}" step 1.1b batch=8 tokens=512 decode=1
  measure step-1.1b-offload 25 "${steps[@]}" step 1.1b batch=8 tokens=512 seconds=4 gradient_checkpointing=offload
  measure packed-1.1b 45 "${steps[@]}" packed 1.1b tokens=512 seconds=4
  measure step-135m 20 "${steps[@]}" step 135m batch=8 tokens=512 seconds=5
  for graphs in off on ""; do  # last, the program's own choice
    measure "graphs-${graphs:-own}-135m" 15 env "QLORA_CUDA_GRAPHS=$graphs" \
      "${steps[@]}" step 135m batch=1 tokens=256 seconds=2 decode=1
  done
fi
if command -v python3 > /dev/null; then
  tiny=()
  [ "$emulated" = 0 ] || tiny=(--tiny --shape tiny --batch 2 --tokens 20 --rank 8 --seconds 1)
  measure peer-attention 30 "${peer[@]}" attention "${tiny[@]}"
  measure peer-product 20 "${peer[@]}" product "${tiny[@]}"
  [ "$emulated" = 1 ] || tiny=(--batch 8 --seconds 8)
  measure peer-step 75 "${peer[@]}" step "${tiny[@]}"
  measure peer-step4bit 90 "${peer[@]}" step4bit "${tiny[@]}"
  grep -h "^peer: " "$build"/peer-*.log | sort -u >> "$report" || true
else
  say "peers: no python3"
fi
if [ "$emulated" = 0 ] && [ -x "$build/bin/qlora_gpu_bench" ]; then
  measure step-7b-paged 60 "${steps[@]}" step 7b batch=1 tokens=512 seconds=5 optim=paged_adamw_32bit gradient_checkpointing=offload
  measure step-13b 60 "${steps[@]}" step 13b batch=4 tokens=512 seconds=8
  measure step-33b 110 "${steps[@]}" step 33b batch=4 tokens=512 seconds=8
fi

section build-scoring 150 cmake --build "$build" --target qlora_scoring_test
if [ -x "$build/bin/qlora_scoring_test" ]; then
  section scoring $((emulated ? 100 : 30)) "$build/bin/qlora_scoring_test"
  grep "^prefix reuse: " "$build/scoring.log" >> "$report" || true
fi

sanitize() {  # TOOL: its summary counts errors, racecheck's hazards; without one it did not run
  local rc=0 summary left=$((seconds - SECONDS))
  [ "$left" -ge 10 ] || { say "compute-sanitizer $1: left out, no time"; return 0; }
  timeout "$((left < 60 ? left : 60))" compute-sanitizer --tool "$1" --error-exitcode 9 "$test" -w NoTests \
    "The device of a GPU runs*" > "$build/$1.log" 2>&1 || rc=$?
  summary=$(grep -E '(ERROR|RACECHECK) SUMMARY' "$build/$1.log" | tail -n 1 | sed 's/^=*//') || true
  if [ -z "$summary" ]; then
    say "compute-sanitizer $1: refused or out of time here ($rc): $(tail -n 1 "$build/$1.log")"
  elif [[ $rc =~ ^(0|124)$ ]] && grep -qE ' 0 (errors|hazards)' <<< "$summary"; then
    say "compute-sanitizer $1:$summary$([ "$rc" -eq 0 ] || echo ' until it was out of time')"
  else
    failed=1
    say "compute-sanitizer $1: FAILED ($rc):$summary"
    tail -n 25 "$build/$1.log" | tee -a "$report"
  fi
}
if [ "$emulated" = 1 ]; then
  section cases 90 "$test" -w NoTests "The device of a GPU runs*"
elif command -v compute-sanitizer > /dev/null; then
  for tool in memcheck racecheck synccheck initcheck; do sanitize "$tool"; done
else
  say "compute-sanitizer: not there"
fi

# The own choice at 1.1b was among the steps; what it is to be held against comes last, where all of it fits.
if [ "$emulated" = 0 ] && [ -x "$build/bin/qlora_gpu_bench" ]; then
  if [ $((seconds - SECONDS)) -lt 50 ]; then
    say "graphs at 1.1b: left out, no time"
  else
    for graphs in off on; do
      measure "graphs-$graphs-1.1b" 25 env "QLORA_CUDA_GRAPHS=$graphs" \
        "${steps[@]}" step 1.1b batch=8 tokens=512 seconds=3 decode=1
    done
  fi
fi

say ""
if command -v python3 > /dev/null; then
  python3 scripts/peers/gpu_table.py "$build"/rows/*.log | tee -a "$report"
else
  cat "$build"/rows/*.log | tee -a "$report"
fi
say "in all $SECONDS s"
exit "$failed"
