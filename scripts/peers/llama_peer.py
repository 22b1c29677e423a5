#!/usr/bin/env python3
"""Measures llama.cpp's token generation beside `qlora bench` and writes what `qlora bench --peers` reads.

    llama_peer.py --qlora build/bin/qlora --llama DIR --model DIR --out FILE [--model-1b DIR] [--rows decode/135m]
                  [--rounds 3] [--threads 2] [--quick]

DIR is a llama.cpp tree, built: cmake -S DIR -B DIR/build -DCMAKE_BUILD_TYPE=Release && cmake --build DIR/build -j
--target llama-bench llama-batched-bench llama-quantize. With GCC 12 on a processor with AMX add
-DCMAKE_CXX_FLAGS="-fno-tree-dse -fno-dse": its _tile_loadconfig says that it reads 8 bytes of the 64, whose others are
then never stored, and llama-batched-bench ends with a segmentation fault (one sequence does not go by tiles). A model
becomes a Q4_0 file, head and embedding too (--pure), beside OUT: by llama.cpp's convert_hf_to_gguf.py, which needs
torch and transformers in the Python that runs this; one without a tokenizer (synthetic_model.py) by ours, which needs
numpy, and leaves the file in the model's folder.

The two sides are not compared: their weights are other ones (see NOT_COMPARED), which the row says.

Every measurement is a process of its own; ours and the peer's take turns. Both are timed by the same clock: the
processor's seconds at one thread, the wall's at more. Prompts and loading are left out on both sides.
"""
import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys

import synthetic_model

NEW_TOKENS, PROMPT_TOKENS = 64, 8  # as in `qlora bench`
NOT_COMPARED = ("not compared: Q4_0 and NF4 + double quantization of the same model folder are different weights, whose "
                "tokens part; both generate 64 tokens for each of as many sequences, prompts left out")
# Row: model, sequences, all threads.
ROWS = {
    "decode/135m/b1/t1": ("model", 1, False),
    "decode/135m/b1/all-threads": ("model", 1, True),
    "decode/135m/b16/all-threads": ("model", 16, True),
    "decode/1.1b/b1/t1": ("model_1b", 1, False),
    "decode/1.1b/b1/all-threads": ("model_1b", 1, True),
}


def run(command):
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def quantized(args, folder):
    """The model as a Q4_0 file; made once, and again when the weights are newer."""
    folder = pathlib.Path(folder)
    ours = not (folder / "tokenizer.json").exists() and not (folder / "tokenizer.model").exists()
    out = folder if ours else pathlib.Path(args.out).parent
    whole, small = out / f"{folder.name}-16.gguf", out / f"{folder.name}-q4_0-pure.gguf"
    weights = max(p.stat().st_mtime for p in folder.glob("*.safetensors"))
    if small.exists() and small.stat().st_mtime > weights:
        return small
    if ours:
        sys.path.insert(0, str(args.llama / "gguf-py"))
        synthetic_model.write_gguf(folder, whole)
    else:
        run([sys.executable, args.llama / "convert_hf_to_gguf.py", folder, "--outfile", whole, "--outtype", "f16"])
    part = small.with_suffix(".part")  # a run that is stopped leaves no half file under the name
    run([args.bin / "llama-quantize", "--pure", whole, part, "Q4_0"])
    whole.unlink()
    return part.rename(small)


def processor_seconds(command):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    out = run(command)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, out


def one_sequence(args, file, threads, large):
    """Tokens a second. At one thread: of the repetitions that a longer run has more than a short one."""
    def bench(repetitions):
        return processor_seconds([args.bin / "llama-bench", "-m", file, "-t", threads, "-p", 0, "-n", NEW_TOKENS,
                                  "-r", repetitions, "-o", "json"])

    # What a run takes to load is as much as many tokens of a small model, and scatters.
    more = (1 if args.quick else 3) if large else (4 if args.quick else 12)
    longer, out = bench(1 + more)
    if threads > 1:
        return json.loads(out)[0]["avg_ts"]
    return more * NEW_TOKENS / (longer - bench(1)[0])


def many_sequences(args, file, threads, sequences):
    """Tokens a second of all sequences together."""
    room = sequences * (PROMPT_TOKENS + NEW_TOKENS)
    text = run([args.bin / "llama-batched-bench", "-m", file, "-t", threads, "-c", room, "-npp", PROMPT_TOKENS, "-ntg",
                NEW_TOKENS, "-npl", sequences, "--output-format", "jsonl"])
    return json.loads(next(l for l in text.splitlines() if l.startswith("{")))["speed_tg"]


def run_ours(args, row):
    command = [args.qlora, "bench", "--rows", row, "--json", "--model", args.model, "--threads", args.threads]
    command += ["--model-1b", args.model_1b] if args.model_1b else []
    return json.loads(run(command + (["--quick"] if args.quick else [])))["rows"][0]["ours"]


def version(args, file):
    about = json.loads(run([args.bin / "llama-bench", "-m", file, "-t", 1, "-p", 0, "-n", 1, "-r", 1, "-o", "json"]))[0]
    return f"llama.cpp {about['build_commit']}".removesuffix(" unknown")


def drive(args, rows):
    pairs = []
    for row in rows:
        which, sequences, all_threads = ROWS[row]
        file, threads = quantized(args, getattr(args, which)), args.threads if all_threads else 1
        clock = "processor" if threads == 1 else "wall"
        pair = {"row": row, "peer_name": f"{version(args, file)} Q4_0 --pure, {clock} seconds", "peer": [], "ours": [],
                "agree": None, "compared": NOT_COMPARED}
        pairs.append(pair)
        for number in range(args.rounds):
            pair["ours"].append(run_ours(args, row))
            pair["peer"].append(one_sequence(args, file, threads, which == "model_1b") if sequences == 1 else
                                many_sequences(args, file, threads, sequences))
            print(f"round {number + 1} {row}: ours {pair['ours'][-1]:.4g}, peer {pair['peer'][-1]:.4g} tokens/s, "
                  f"load {os.getloadavg()[0]:.1f}", file=sys.stderr)
            # What is measured is kept, whatever happens next.
            pathlib.Path(args.out).write_text(json.dumps(pairs, indent=1) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--qlora", required=True)
    parser.add_argument("--llama", required=True, type=pathlib.Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--model-1b", dest="model_1b")
    parser.add_argument("--out", required=True)
    parser.add_argument("--rows", default="", help="beginnings of row names, after commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="fewer tokens a measurement")
    args = parser.parse_args()
    args.bin = args.llama / "build" / "bin"
    for program in ("llama-bench", "llama-batched-bench", "llama-quantize"):
        if not (args.bin / program).exists():
            parser.error(f"no {args.bin / program}: build llama.cpp first, see --help")
    wanted = args.rows.split(",")
    drive(args, [row for row, (which, _, _) in ROWS.items()
                 if getattr(args, which) and any(row.startswith(w) for w in wanted)])


if __name__ == "__main__":
    main()
