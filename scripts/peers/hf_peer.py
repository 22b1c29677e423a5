#!/usr/bin/env python3
"""Measures PEFT + bitsandbytes beside `qlora bench` and writes what `qlora bench --peers` reads.

    hf_peer.py --qlora build/bin/qlora --model DIR --out FILE [--rows step,memory] [--rounds 3] [--threads 2] [--quick]

Every measurement is a process of its own; ours and the peer's take turns (A B A B ...), and pairs are written, so that
the ratio is taken pair by pair. "installed" is the peer as pip installs it; "tuned" preloads tcmalloc
(libtcmalloc-minimal4). The peer computes in bf16 where the processor multiplies bf16, else in f32, as ours does.
Needs torch, transformers, peft and bitsandbytes in the Python that runs this script.

Both sides train on the same tokens from the same weights; their losses are compared (LOSS_BOUNDS), and a row whose sides
disagree gets no ratio. Adapters begin at zero, so the first loss is the model's own; later ones differ by dropout and by
A's random numbers too.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import turns

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
# How far losses may be apart, as parts of ours: that of the first step, those of the steps after it.
LOSS_BOUNDS = {"f32": (0.002, 0.03), "bf16": (0.01, 0.03), "dense": (0.10, 0.10)}
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
    """Yields (seconds, real tokens, loss) of each step."""
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
        seconds = clock() - begin
        yield seconds, sum(len(e["ids"]) for e in examples), loss.item()


def measure_steps(args, kind, checkpointing, quantized):
    if kind == "full":
        batches = [json.load(open(os.path.join(args.examples, "full.json")))] * (args.steps + 1)
    else:
        ragged = json.load(open(os.path.join(args.examples, "ragged.json")))
        at = lambda i: [ragged[j % len(ragged)] for j in range(16 * i, 16 * i + 16)]
        batches = [at(i) for i in range(args.steps + 1)]
    model, dtype = load(args, quantized, checkpointing, 16)
    done = list(train_steps(model, dtype, batches))
    rates = sorted(tokens / seconds for seconds, tokens, _ in done[1:])
    return {"tokens/s": rates[len(rates) // 2], "MiB": peak_mib(), "losses": [loss for _, _, loss in done]}


def measure_quickstart(args):
    """The same runs one after another, each with its own load, as a script for each would do it."""
    import time

    begin = time.perf_counter()
    losses = {}
    for run in json.load(open(os.path.join(args.examples, "quickstart.json"))):
        model, dtype = load(args, True, False, run["rank"], run["alpha"], run["dropout"])
        n = run["batch"]
        batches = [run["examples"][i:i + n] for i in range(0, len(run["examples"]), n)]
        steps = train_steps(model, dtype, batches, run["learning_rate"], run["max_grad_norm"])
        losses[run["name"]] = [loss for _, _, loss in steps]
    return {"sweeps/hour": 3600 / (time.perf_counter() - begin), "losses": losses}


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
    if kind == "quantize":
        warm = F.dequantize_4bit(*body())
    half_step = 0.153 * w.reshape(-1, 64).abs().amax(1, keepdim=True)  # NF4's widest step is 0.304
    furthest = ((warm.float() - w).reshape(-1, 64).abs() / half_step).max().item()
    seconds = []
    # One thread, so the processor's seconds, as for ours: a neighbour's load does not stretch them.
    while len(seconds) < 5 or (sum(seconds) < 1 and len(seconds) < 200):
        begin = time.process_time()
        body()
        seconds.append(time.process_time() - begin)
    seconds.sort()
    return {"GB/s": gigabytes / seconds[len(seconds) // 2], "furthest": furthest}


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
    command = [args.qlora, "bench", "--rows", row, "--model", args.model, "--threads", args.threads]
    return turns.run_ours(command + (["--quick"] if args.quick else []), row)


def compare_losses(ours, theirs, bounds):
    """(agree, in words) of two lists of losses, step by step as far as both go."""
    steps = min(len(ours), len(theirs))
    if steps == 0:
        return False, f"{len(ours)} losses on our side, {len(theirs)} on the peer's"
    first, *later = [abs(b - a) / a for a, b in zip(ours[:steps], theirs[:steps])]
    words = f"loss of the first step {ours[0]:.4f}, the peer's {theirs[0]:.4f} (within {100 * bounds[0]:g}%)"
    if later:
        words += f"; of the next {len(later)} at most {100 * max(later):.2g}% apart (within {100 * bounds[1]:g}%)"
    return first <= bounds[0] and max(later, default=0) <= bounds[1], words


def compare_runs(ours, theirs, bounds):
    """The same of runs by name; after the first step, of the mean over all steps, for runs of their own seeds part."""
    if sorted(ours) != sorted(theirs):
        return False, f"runs {sorted(ours)} on our side, {sorted(theirs)} on the peer's"
    mean = {name: [losses[0], sum(losses) / len(losses)] for name, losses in ours.items()}
    results = [compare_losses(mean[name], [theirs[name][0], sum(theirs[name]) / len(theirs[name])], bounds)
               for name in sorted(ours)]
    return all(agree for agree, _ in results), "; ".join(
        f"{name}: {words.replace('of the next 1 at most', 'mean of all steps')}"
        for name, (_, words) in zip(sorted(ours), results))


def compare(row, computed, theirs):
    if row in CODECS:
        return theirs["furthest"] <= 1.1, (f"the peer's weights come back within {theirs['furthest']:.3f} half steps of "
                                           "NF4 (bound 1.1: scales and results are rounded too)")
    quantized = STEPS[row][2]
    bounds = LOSS_BOUNDS["dense" if not quantized else "bf16" if multiplies_bf16() else "f32"]
    agree, words = (compare_runs if row == "quickstart/training" else compare_losses)(
        computed.get("losses", {}), theirs["losses"], bounds)
    return agree, words if quantized else words + "; the peer's base is not quantized"


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
    pairs = {row: {"row": row, "peer_name": peer_name(row), "peer": [], "ours": [], "agree": True, "compared": ""}
             for row in rows}
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
                mine, computed = ours[twin(row)]
                agree, words = compare(row, computed, peers[key])
                if pairs[row]["agree"]:  # the first that disagrees is told
                    pairs[row].update(agree=agree, compared=words)
                pairs[row]["ours"].append(mine["ours"])
                pairs[row]["peer"].append(peers[key][mine["unit"]])
                print(f"round {round_number + 1} {row}: ours {mine['ours']:.4g}, peer {pairs[row]['peer'][-1]:.4g} "
                      f"{mine['unit']}, load {os.getloadavg()[0]:.1f}; {'' if agree else 'DISAGREE: '}{words}",
                      file=sys.stderr)
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
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args)))
    elif not args.qlora or not args.out:
        parser.error("--qlora and --out are required")
    else:
        drive(args)


if __name__ == "__main__":
    main()
