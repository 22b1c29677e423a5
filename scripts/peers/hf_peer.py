#!/usr/bin/env python3
"""Measures PEFT + bitsandbytes beside `qlora bench` and writes what `qlora bench --peers` reads.

    hf_peer.py --qlora build/bin/qlora --model DIR --out FILE [--rows step,memory] [--rounds 3] [--threads 2] [--quick]

Every measurement is a process of its own; ours and the peer's take turns (A B A B ...), and pairs are written, so that
the ratio is taken pair by pair. "installed" is the peer as pip installs it; "tuned" preloads tcmalloc
(libtcmalloc-minimal4). The peer computes in bf16 where the processor multiplies bf16, else in f32, as ours does.
Needs torch, transformers, peft and bitsandbytes in the Python that runs this script.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

TCMALLOC = ("/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4", "/usr/lib/libtcmalloc_minimal.so.4")

# What the peer does for a row: kind, checkpointing, quantized base, tuned.
STEPS = {
    "step/checkpointing/installed": ("full", True, True, False),
    "step/checkpointing/tuned": ("full", True, True, True),
    "memory/peer": ("full", True, True, True),
    "step/none/installed": ("full", False, True, False),
    "step/none/tuned": ("full", False, True, True),
    "step/none/dense-tuned": ("full", False, False, True),
    "ragged/none/installed": ("ragged", False, True, False),
    "ragged/none/tuned": ("ragged", False, True, True),
    "ragged/checkpointing/installed": ("ragged", True, True, False),
    "ragged/checkpointing/tuned": ("ragged", True, True, True),
    "quickstart/training": ("quickstart", False, True, False),
}
CODECS = {
    "dequantize/cache/2048x2048/t1": ("dequantize", 2048, 2048),
    "dequantize/memory/11008x4096/t1": ("dequantize", 11008, 4096),
    "quantize/cache/2048x2048/t1": ("quantize", 2048, 2048),
    "quantize/memory/11008x4096/t1": ("quantize", 11008, 4096),
}


def multiplies_bf16():
    flags = next((l for l in open("/proc/cpuinfo") if l.startswith("flags")), "")
    return "avx512_bf16" in flags or "amx_bf16" in flags


def peak_mib():
    line = next(l for l in open("/proc/self/status") if l.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


# ---- one measurement, in a process of its own


def load(args, quantized, checkpointing, rank, alpha=16, dropout=0.05):
    import torch
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    dtype = torch.bfloat16 if multiplies_bf16() else torch.float32
    config = None
    if quantized:
        config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                                    bnb_4bit_compute_dtype=dtype)
    model = AutoModelForCausalLM.from_pretrained(args.model, quantization_config=config, dtype=dtype)
    model.config.use_cache = False
    if quantized:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=checkpointing,
                                                gradient_checkpointing_kwargs={"use_reentrant": False})
    elif checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model = get_peft_model(model, LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=targets,
                                             task_type="CAUSAL_LM"))
    model.train()
    return model, dtype


def padded(examples):
    import torch

    longest = max(len(e["ids"]) for e in examples)

    def pad(values, fill):
        return values + [fill] * (longest - len(values))

    return {"input_ids": torch.tensor([pad(e["ids"], 2) for e in examples]),
            "labels": torch.tensor([pad(e["labels"], -100) for e in examples]),
            "attention_mask": torch.tensor([pad([1] * len(e["ids"]), 0) for e in examples])}


def train_steps(model, dtype, batches, learning_rate=2e-4, max_norm=0.3):
    """Yields (seconds, real tokens) of each step."""
    import time
    import torch

    # One thread is timed in the processor's seconds, as ours is: a neighbour's load does not stretch them.
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=learning_rate, weight_decay=0.0)
    for examples in batches:
        batch = padded(examples)
        begin = clock()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, max_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield clock() - begin, sum(len(e["ids"]) for e in examples)


def measure_steps(args, kind, checkpointing, quantized):
    import random

    if kind == "full":
        random.seed(7)
        examples = [{"ids": [random.randrange(49152) for _ in range(args.length)]} for _ in range(args.batch)]
        for e in examples:
            e["labels"] = e["ids"]
        batches = [examples] * (args.steps + 1)
    else:
        ragged = json.load(open(os.path.join(args.examples, "ragged.json")))
        at = lambda i: [ragged[j % len(ragged)] for j in range(16 * i, 16 * i + 16)]
        batches = [at(i) for i in range(args.steps + 1)]
    model, dtype = load(args, quantized, checkpointing, 16)
    done = list(train_steps(model, dtype, batches))[1:]
    rates = sorted(tokens / seconds for seconds, tokens in done)
    return {"tokens/s": rates[len(rates) // 2], "MiB": peak_mib()}


def measure_quickstart(args):
    """The same runs one after another, each with its own load, as a script for each would do it."""
    import time

    begin = time.perf_counter()
    for run in json.load(open(os.path.join(args.examples, "quickstart.json"))):
        model, dtype = load(args, True, False, run["rank"], run["alpha"], run["dropout"])
        n = run["batch"]
        batches = [run["examples"][i:i + n] for i in range(0, len(run["examples"]), n)]
        for _ in train_steps(model, dtype, batches, run["learning_rate"], run["max_grad_norm"]):
            pass
    return {"sweeps/hour": 3600 / (time.perf_counter() - begin)}


def measure_codec(kind, out, in_features):
    import ctypes
    import time
    import bitsandbytes.functional as F
    import torch
    from bitsandbytes.cextension import lib

    torch.set_num_threads(1)
    torch.manual_seed(1)
    w = torch.rand(out, in_features) * 2 - 1
    n = w.numel()
    if kind == "quantize":
        body = lambda: F.quantize_4bit(w, blocksize=64, compress_statistics=False, quant_type="nf4")
        gigabytes = 4e-9 * n
    else:
        packed, state = F.quantize_4bit(w, blocksize=64, compress_statistics=True, quant_type="nf4")
        warm = torch.zeros(out, in_features, dtype=torch.bfloat16)
        pointer = lambda t: ctypes.c_void_p(t.data_ptr())

        # bitsandbytes' own kernels on memory that is there already: the nested scales, then the codes.
        def body():
            absmax = F.dequantize_blockwise(state.absmax, state.state2) + state.offset
            lib.cdequantize_blockwise_cpu_nf4_bf16(pointer(packed), pointer(absmax), pointer(warm),
                                                   ctypes.c_longlong(64), ctypes.c_longlong(out),
                                                   ctypes.c_longlong(in_features))

        gigabytes = 2e-9 * n
    body()
    seconds = []
    # One thread, so the processor's seconds, as for ours: a neighbour's load does not stretch them.
    while len(seconds) < 5 or (sum(seconds) < 1 and len(seconds) < 200):
        begin = time.process_time()
        body()
        seconds.append(time.process_time() - begin)
    seconds.sort()
    return {"GB/s": gigabytes / seconds[len(seconds) // 2]}


def measure(args):
    import torch

    torch.set_num_threads(args.threads)
    if args.measure in CODECS:
        return measure_codec(*CODECS[args.measure])
    kind, checkpointing, quantized, _ = STEPS[args.measure]
    return measure_quickstart(args) if kind == "quickstart" else measure_steps(args, kind, checkpointing, quantized)


# ---- the driver


def peer_name(row):
    from importlib.metadata import version

    names = " + ".join(f"{n} {version(n)}" for n in ("peft", "bitsandbytes", "torch"))
    if row in CODECS:
        return f"bitsandbytes {version('bitsandbytes')} (CPU), torch {version('torch')}"
    how = "tuned (tcmalloc)" if STEPS[row][3] else "as installed"
    base = "" if STEPS[row][2] else "dense base, "
    return f"{names}, {base}{'bf16' if multiplies_bf16() else 'f32'}, {how}"


def environment(args, tuned):
    env = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS_")}
    env.update(OMP_NUM_THREADS=str(args.threads), HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false",
               TQDM_DISABLE="1", PYTHONWARNINGS="ignore")
    if tuned:
        env["LD_PRELOAD"] = next(p for p in TCMALLOC if os.path.exists(p))
    return env


def run_peer(args, row, examples):
    tuned = row in STEPS and STEPS[row][3]
    command = [sys.executable, __file__, "--measure", row, "--model", args.model, "--threads", str(args.threads),
               "--steps", str(1 if args.quick else 3), "--examples", examples]
    done = subprocess.run(command, env=environment(args, tuned), stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def run_ours(args, row):
    command = [args.qlora, "bench", "--rows", row, "--json", "--model", args.model, "--threads", str(args.threads)]
    done = subprocess.run(command + (["--quick"] if args.quick else []), stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout)["rows"][0]


def twin(row):
    """Rows of one measurement of ours: they differ in the peer alone."""
    return row.rsplit("/", 1)[0] if row.startswith(("step/", "ragged/")) else row


def drive(args):
    wanted = args.rows.split(",") if args.rows else [""]
    rows = [r for r in list(CODECS) + list(STEPS) if any(r.startswith(w) for w in wanted)]
    if not any(os.path.exists(p) for p in TCMALLOC):
        print("no tcmalloc (Debian: libtcmalloc-minimal4): the tuned rows are left out", file=sys.stderr)
        rows = [r for r in rows if r in CODECS or not STEPS[r][3]]
    if not rows:
        return
    pairs = {row: {"row": row, "peer_name": peer_name(row), "peer": [], "ours": []} for row in rows}
    with tempfile.TemporaryDirectory() as examples:
        subprocess.run([args.qlora, "bench", "--export", examples, "--model", args.model], check=True)
        for round_number in range(args.rounds):
            ours, peers = {}, {}
            for row in rows:
                if twin(row) not in ours:
                    ours[twin(row)] = run_ours(args, row)
                key = (STEPS[row] if row in STEPS else row)
                if key not in peers:
                    peers[key] = run_peer(args, row, examples)
                mine = ours[twin(row)]
                pairs[row]["ours"].append(mine["ours"])
                pairs[row]["peer"].append(peers[key][mine["unit"]])
                print(f"round {round_number + 1} {row}: ours {mine['ours']:.4g}, peer {pairs[row]['peer'][-1]:.4g} "
                      f"{mine['unit']}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
                # What is measured is kept, whatever happens next.
                finished = [p for p in pairs.values() if p["peer"]]
                pathlib.Path(args.out).write_text(json.dumps(finished, indent=1) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--qlora")
    parser.add_argument("--model", required=True)
    parser.add_argument("--out")
    parser.add_argument("--rows", default="", help="beginnings of row names, after commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="one step a process")
    parser.add_argument("--measure", choices=list(STEPS) + list(CODECS), help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, default=3, help=argparse.SUPPRESS)
    parser.add_argument("--examples", default="", help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, default=4, help=argparse.SUPPRESS)
    parser.add_argument("--length", type=int, default=512, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args)))
    elif not args.qlora or not args.out:
        parser.error("--qlora and --out are required")
    else:
        drive(args)


if __name__ == "__main__":
    main()
