#!/usr/bin/env bash
# Measures this program against others and against the machine, and keeps the answer: builds with QLORA_BENCH=ON, lets
# the peers that are there run in turn with it, runs `qlora bench`, and writes results/bench/DATE-CPU.json and .txt.
#   scripts/bench.sh                         ours, and oneDNN and OpenBLAS from Debian's packages
#     --with-hf PYTHON                       also PEFT + bitsandbytes: a Python that has torch, transformers, peft,
#                                            bitsandbytes (python3 -m venv V; V/bin/pip install torch transformers peft
#                                            bitsandbytes)
#     --with-lm-eval PYTHON                  also lm-evaluation-harness: a Python that has lm_eval 0.4.13, torch
#                                            and transformers
#     --with-llama-cpp DIR                   also llama.cpp, a built tree; its converter runs in --with-hf's Python,
#                                            or else in python3: torch, transformers, numpy
#     --model DIR, --model-1b DIR            SmolLM2-135M-Instruct (default: where quickstart.sh puts it); a LLaMA of
#                                            TinyLlama's shape (default, with llama.cpp: random weights, made in a
#                                            temporary folder of 4 GB)
#     --rows A,B  --threads N  --quick       as for `qlora bench`; --rounds N: of peers that run in turn (default 3)
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/.."
. scripts/packages.sh

python="" lm_eval="" llama="" model="" model_1b="" rows="" threads=2 rounds=3 quick=()
while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help)
      sed -n '2,15s/^# \{0,1\}//p' scripts/bench.sh
      exit 0 ;;
    --quick)
      quick=(--quick)
      shift
      continue ;;
    --with-hf | --with-lm-eval | --with-llama-cpp | --model | --model-1b | --rows | --threads | --rounds)
      [ $# -ge 2 ] || { echo "bench: $1 needs a value" >&2; exit 2; } ;;
    *)
      echo "bench: unknown argument $1; see --help" >&2
      exit 2 ;;
  esac
  case "$1" in
    --with-hf) python=$2 ;;
    --with-lm-eval) lm_eval=$2 ;;
    --with-llama-cpp) llama=$2 ;;
    --model) model=$2 ;;
    --model-1b) model_1b=$2 ;;
    --rows) rows=$2 ;;
    --threads) threads=$2 ;;
    --rounds) rounds=$2 ;;
  esac
  shift 2
done
if [ -n "$python" ] && ! "$python" -c 'import torch, transformers, peft, bitsandbytes' 2> /dev/null; then
  echo "bench: $python lacks torch, transformers, peft or bitsandbytes" >&2
  exit 2
fi

if [ -n "$lm_eval" ] && ! "$lm_eval" -c 'import torch, transformers, lm_eval' 2> /dev/null; then
  echo "bench: $lm_eval lacks torch, transformers or lm_eval" >&2
  exit 2
fi

# shellcheck disable=SC2086
scripts/install_packages.sh $QLORA_BUILD_PACKAGES $QLORA_BENCH_PACKAGES
cmake -S . -B build-bench -G Ninja -DCMAKE_BUILD_TYPE=Release -DQLORA_BENCH=ON -DQLORA_TESTS=OFF > /dev/null
cmake --build build-bench --target qlora
qlora=$PWD/build-bench/bin/qlora

[ -n "$model" ] || model=${QLORA_HOME:-.cache/qlora}/models/SmolLM2-135M-Instruct
[ -f "$model/config.json" ] || scripts/get_smollm2.sh "$qlora" "$model"

# Debian's and others' settings for OpenBLAS slow it down; the benchmark measures what the library chooses itself.
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE OPENBLAS_NUM_THREADS
work=build-bench/peers
mkdir -p "$work" results/bench
rm -f "$work"/{hf,llama,lm_eval,transformers_prefix}.json
select=()
[ -z "$rows" ] || select=(--rows "$rows")
if [ -n "$python" ]; then
  "$python" scripts/peers/hf_peer.py --qlora "$qlora" --model "$model" --out "$work/hf.json" --rounds "$rounds" \
    --threads "$threads" "${select[@]}" "${quick[@]}" || echo "bench: PEFT + bitsandbytes stopped early" >&2
fi
one_row() {  # PYTHON NAME: a peer of one row
  [ -n "$1" ] || return 0
  "$1" "scripts/peers/$2_peer.py" --qlora "$qlora" --model "$model" --out "$work/$2.json" --rounds "$rounds" \
    --threads "$threads" "${select[@]}" "${quick[@]}" || echo "bench: $2 stopped early" >&2
}
one_row "$lm_eval" lm_eval
one_row "$python" transformers_prefix
wanted() {  # NAME: whether a row is asked for whose name begins so
  [ -n "$rows" ] || return 0
  local row
  for row in ${rows//,/ }; do [[ $1 != "$row"* && $row != "$1"* ]] || return 0; done
  return 1
}
if [ -n "$llama" ] && [ -z "$model_1b" ] && wanted decode/1.1b; then
  model_1b=$(mktemp -d "$work/synthetic-1.1b.XXXXXX")
  trap 'rm -rf "$model_1b"' EXIT
  "${python:-python3}" scripts/peers/synthetic_model.py "$model_1b"
fi
large=()
[ -z "$model_1b" ] || large=(--model-1b "$model_1b")
if [ -n "$llama" ]; then
  "${python:-python3}" scripts/peers/llama_peer.py --qlora "$qlora" --llama "$llama" --model "$model" \
    --out "$work/llama.json" --rounds "$rounds" --threads "$threads" "${large[@]}" "${select[@]}" "${quick[@]}" ||
    echo "bench: llama.cpp stopped early" >&2
fi
python3 - "$work" << 'PYTHON'
import json, pathlib, sys
work = pathlib.Path(sys.argv[1])
files = [work / f"{name}.json" for name in ("hf", "lm_eval", "transformers_prefix", "llama")]
values = [v for f in files if f.exists() for v in json.loads(f.read_text())]
(work / "all.json").write_text(json.dumps(values, indent=1) + "\n")
PYTHON

cpu=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -1 | tr -cs '[:alnum:]' '-' | sed 's/-$//')
out=results/bench/$(date -u +%Y-%m-%d)-$cpu
common=(--model "$model" --threads "$threads" "${large[@]}" "${quick[@]}")
# Beside first: a benchmark that stops leaves no half report among the results.
"$qlora" bench "${common[@]}" "${select[@]}" --peers "$work/all.json" --json > "$work/report.json"
python3 scripts/peers/table.py "$work/report.json" > "$work/report.txt"
mv "$work/report.json" "$out.json"
mv "$work/report.txt" "$out.txt"
cat "$out.txt"
echo "written: $out.json, $out.txt" >&2
