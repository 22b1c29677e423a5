#!/usr/bin/env python3
"""Plans QLoRA training of the LLaMAs for the cards of the paper and writes results/memory/README.md.

    memory_table.py [QLORA] [--out FILE]      QLORA: the program (default build/bin/qlora)

No weights are needed: `qlora model plan` counts from the sizes that a config.json says.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

# name, hidden, layers, heads, intermediate; the card, and what of it a program can use (see TEXT)
MODELS = [("7B", 4096, 32, 32, 11008, "6 GB", 5.7), ("13B", 5120, 40, 40, 13824, "12 GB", 11.1),
          ("33B", 6656, 60, 52, 17920, "24 GB", 22.3), ("65B", 8192, 80, 64, 22016, "48 GB", 44.6)]
OPTIMIZERS = [("paged_adamw_32bit", "host memory, f32"), ("adamw_8bit", "GPU, 8 bits"), ("adamw_torch", "GPU, f32")]
LENGTHS = [512, 2048, 8192]  # tokens, with and without blocks' inputs on the GPU
CONTEXT = "410M"
GIB = 1 << 30

TEXT = """# Memory of QLoRA training, planned

**Planned, not measured: nothing here ran on a GPU.** `scripts/memory_table.py` writes this page from
`qlora model plan`, which runs the code of a real training step on a backend that allocates nothing and counts all:
the arenas of tensors with their gaps, what kernels keep for themselves, slabs of paged states. A step on the emulated
GPU takes what is planned for it within 3% (`experiments/model_plan_test.cpp`).

NF4 with double quantization, rank 64 on all linears of the blocks, one example of 512 tokens that are all learned,
bf16 products, activations f32, `gradient_checkpointing: block`. What is chosen for products of many rows is what the
plan chooses for a card with so much memory, as it does for training: through cuBLAS, with a workspace of 32 MiB and
weights decoded to bf16, of which a block's stay from its recomputation to its gradients (`decoded stay`); where that
does not fit, decoded at most 128 MiB at a time; where that does not fit either, by our own tiles, which decode as they
multiply, slower. Of the card, {context} MiB are taken to be the CUDA context's, which only a GPU can tell. `usable` is
what remains of such a card where error correction is on (24 GB: 22.3 GiB) or a desktop shares it (6 GB: 5.7 GiB); for 12
and 48 GB the smaller of the two shares, 0.93. GiB everywhere.

"""


def config(hidden, layers, heads, intermediate):
    return {"model_type": "llama", "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
            "num_key_value_heads": heads, "intermediate_size": intermediate, "vocab_size": 32000,
            "max_position_embeddings": max(LENGTHS), "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "hidden_act": "silu",
            "tie_word_embeddings": False, "torch_dtype": "float16"}


def plan(program, path, optimizer, usable, tokens=512, mode="block"):
    """The plan for so many GiB; where none fits (exit code 4), the one that needs least."""
    command = [program, "model", "plan", path, "--backend", "cuda", "--context", CONTEXT, "--json", "--tokens",
               str(tokens), "--lora_r", "64", "--optim", optimizer, "--gradient_checkpointing", mode,
               "--memory", str(int(usable * GIB))]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("QLORA_CU")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode not in (0, 4):
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def gib(size):
    return f"{size / GIB:.2f}"


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def rows_of_lengths(program, path, name, card, usable):
    """Adam's states in host memory, and the inputs of blocks there or not."""
    rows = []
    for tokens in LENGTHS:
        for mode in ("block", "offload"):
            report = plan(program, path, OPTIMIZERS[0][0], usable, tokens, mode)
            products, b = "cuBLAS" if report["cublas"] else "our tiles", report["bytes"]
            rows.append([name, card, str(tokens), mode, products, gib(b["kept_decoded"]), f"{usable:.1f}",
                         gib(b["total"]), "yes" if report["fits"] else "**no**",
                         gib(b["activations"] + b["buffers"]), gib(b["offloaded"])])
    return rows


def main():
    arguments = sys.argv[1:]
    out = pathlib.Path("results/memory/README.md")
    if "--out" in arguments:
        at = arguments.index("--out")
        out = pathlib.Path(arguments[at + 1])
        del arguments[at:at + 2]
    program = arguments[0] if arguments else "build/bin/qlora"
    totals, parts, lengths = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for name, hidden, layers, heads, intermediate, card, usable in MODELS:
            path = pathlib.Path(folder) / f"{name}.json"
            path.write_text(json.dumps(config(hidden, layers, heads, intermediate)), encoding="utf-8")
            for optimizer, place in OPTIMIZERS:
                report = plan(program, str(path), optimizer, usable)
                products, b = "cuBLAS" if report["cublas"] else "our tiles", report["bytes"]
                totals.append([name, card, "f32", "f32", place, products, gib(b["kept_decoded"]), str(report["tokens"]),
                               gib(b["context"]), f"{usable:.1f}", gib(b["total"]),
                               "yes" if report["fits"] else "**no**"])
                parts.append([name, place, products, gib(b["base_quantized"]), gib(b["base_dense"]), gib(b["adapter"]),
                              gib(b["gradients"]), gib(b["optimizer"]), gib(b["activations"] + b["buffers"]),
                              gib(b["gaps"]), gib(b["kernels"]), gib(b["slabs"]), gib(b["logits_chunk"]),
                              gib(b["paged"])])
            lengths += rows_of_lengths(program, str(path), name, card, usable)
    text = TEXT.format(context=CONTEXT[:-1])
    text += table(["model", "card", "adapter", "gradients", "Adam's states", "products", "decoded stay", "tokens",
                   "context", "usable", "in all", "fits"], totals)
    text += "\nWhat that is made of; the last two are not part of the sum: a chunk of logits exists when the blocks'\n"
    text += "activations do not, and paged states lie in pinned memory of the host.\n\n"
    text += table(["model", "Adam's states", "products", "codes", "tables, norms", "adapter", "gradients", "Adam",
                   "activations", "gaps", "kernels' own", "slabs", "(logits)", "(host)"], parts)
    text += "\nLonger examples, with Adam's states in host memory. `offload`: the inputs of blocks wait there too, all but\n"
    text += "two of them, and each crosses the bus twice in a step; no number changes.\n\n"
    text += table(["model", "card", "tokens", "gradient_checkpointing", "products", "decoded stay", "usable", "in all",
                   "fits", "activations", "(inputs of blocks, host)"], lengths)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
