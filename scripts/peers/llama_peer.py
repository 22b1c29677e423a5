#!/usr/bin/env python3
"""Measures llama.cpp's token generation beside `qlora bench` and writes what `qlora bench --peers` reads.

    llama_peer.py --qlora build/bin/qlora --llama DIR --model DIR --out FILE [--model-1b DIR] [--rounds 5] [--threads 2]

DIR is a llama.cpp tree, built: cmake -S DIR -B DIR/build -DCMAKE_BUILD_TYPE=Release && cmake --build DIR/build -j
--target llama-bench llama-batched-bench llama-quantize. The model becomes a Q4_0 file, head and embedding too
(--pure), beside OUT; its convert_hf_to_gguf.py needs a Python with torch, transformers and gguf: the one that runs this.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys

NEW_TOKENS = 64
# Row: model, sequences, all threads.
ROWS = {
    "decode/135m/b1/t1": ("model", 1, False),
    "decode/135m/b1/all-threads": ("model", 1, True),
    "decode/135m/b16/all-threads": ("model", 16, True),
    "decode/1.1b/b1/t1": ("model_1b", 1, False),
}


def run(command):
    return subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, check=True, text=True).stdout


def quantized(args, folder):
    out = pathlib.Path(args.out).parent
    name = pathlib.Path(folder).name
    whole, small = out / f"{name}-f16.gguf", out / f"{name}-q4_0-pure.gguf"
    if not small.exists():
        run([sys.executable, args.llama / "convert_hf_to_gguf.py", folder, "--outfile", whole, "--outtype", "f16"])
        run([args.bin / "llama-quantize", "--pure", whole, small, "Q4_0"])
        whole.unlink()
    return small


def run_peer(args, file, sequences, threads):
    """Tokens a second of all sequences together, prompts left out."""
    if sequences == 1:
        rows = json.loads(run([args.bin / "llama-bench", "-m", file, "-t", threads, "-p", 0, "-n", NEW_TOKENS, "-r", 1,
                               "-o", "json"]))
        return next(r["avg_ts"] for r in rows if r["n_gen"] > 0)
    text = run([args.bin / "llama-batched-bench", "-m", file, "-t", threads, "-c", 4096, "-npp", 8, "-ntg", NEW_TOKENS,
                "-npl", sequences, "--output-format", "jsonl"])
    line = next(l for l in text.splitlines() if l.startswith("{"))
    return json.loads(line)["speed_tg"]


def run_ours(args, row):
    command = [args.qlora, "bench", "--rows", row, "--json", "--model", args.model, "--threads", args.threads]
    if args.model_1b:
        command += ["--model-1b", args.model_1b]
    return json.loads(run(command))["rows"][0]["ours"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--qlora", required=True)
    parser.add_argument("--llama", required=True, type=pathlib.Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--model-1b", dest="model_1b")
    parser.add_argument("--out", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    args.bin = args.llama / "build" / "bin"
    for program in ("llama-bench", "llama-batched-bench", "llama-quantize"):
        if not (args.bin / program).exists():
            parser.error(f"no {args.bin / program}: build llama.cpp first, see --help")
    version = run(["git", "-C", args.llama, "log", "-1", "--format=%h"]).strip() if (args.llama / ".git").exists() else ""
    pairs = []
    for row, (which, sequences, all_threads) in ROWS.items():
        folder = getattr(args, which)
        if not folder:
            continue
        file, threads = quantized(args, folder), args.threads if all_threads else 1
        pair = {"row": row, "peer_name": f"llama.cpp {version} Q4_0 --pure", "peer": [], "ours": []}
        pairs.append(pair)
        for number in range(args.rounds):
            pair["ours"].append(run_ours(args, row))
            pair["peer"].append(run_peer(args, file, sequences, threads))
            print(f"round {number + 1} {row}: ours {pair['ours'][-1]:.4g}, peer {pair['peer'][-1]:.4g} tokens/s, "
                  f"load {os.getloadavg()[0]:.1f}", file=sys.stderr)
            pathlib.Path(args.out).write_text(json.dumps(pairs, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
