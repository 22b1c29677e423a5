#!/usr/bin/env python3
"""What PyTorch, PEFT and bitsandbytes reach on this machine's GPU, on the work of qlora_device_bench and gpu_bench.

    gpu_peer.py attention|product|step|step4bit [--shape 7b] [--batch 4] [--tokens 512] [--rank 64] [--seconds 10]
                [--tiny]

One section a call; rows as our own programs write them, name, value and unit in columns, then the device, the type and
the versions. Says in one line what is missing in this Python, and ends with 0 then. --tiny: small sizes, on the
processor where there is no GPU.

A step is ours: the same sizes, tokens and optimizer, adapters in f32 on all linears of the blocks, dropout 0.05, blocks
computed again in backward. That it is, is looked at before it is timed.
"""
import argparse
import importlib
import os
import sys
import time

SHAPES = {  # hidden, intermediate, layers, heads, kv heads, vocabulary, tied head
    "tiny": (128, 160, 2, 2, 1, 320, False),
    "135m": (576, 1536, 30, 9, 3, 49152, True),
    "1.1b": (2048, 5632, 22, 32, 4, 32000, False),
    "7b": (4096, 11008, 32, 32, 32, 32000, False),
    "13b": (5120, 13824, 40, 40, 40, 32000, False),
}
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def leave(why):
    print(f"peer: {why}", flush=True)
    sys.exit(0)


def module(name):
    """A library that may not be here, or be here and not work."""
    try:
        return importlib.import_module(name)
    except ImportError as e:
        leave(f"no {e.name or name} in this Python: no row of it")
    except Exception as e:  # of another version than its neighbours, without its shared library
        why = " ".join(str(e).split())[:200]
        leave(f"{name} does not start here ({type(e).__name__}: {why}): no row of it")


def check(holds, what):
    if not holds:
        sys.exit(f"gpu_peer: {what}: not the work of our rows, so nothing is timed")


class Bench:
    def __init__(self, torch):
        self.torch = torch
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        name = torch.cuda.get_device_name() if self.device == "cuda" else "processor"
        self.where = f"{name}, bf16, torch {torch.__version__}"

    def row(self, name, value, unit, *notes):
        print(f"{name:<52} {value:>10.5g} {unit:<10} {', '.join((self.where,) + notes)}", flush=True)

    def seconds_of(self, call, calls):
        """Of one of so many calls in a row: by events on the GPU, else by the clock."""
        if self.device == "cpu":
            start = time.perf_counter()
            for _ in range(calls):
                call()
            return (time.perf_counter() - start) / calls
        start, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.torch.cuda.synchronize()
        start.record()
        for _ in range(calls):
            call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1000 / calls

    def median_seconds(self, call, seconds):
        """Of one call, after two to warm up; short ones are timed many together, to a fifth of a second."""
        for _ in range(2):
            call()
        calls = max(1, min(1000, int(0.2 / max(self.seconds_of(call, 1), 1e-6))))
        rounds, begin = [], time.monotonic()
        while not rounds or (time.monotonic() - begin < seconds and len(rounds) < 20):
            rounds.append(self.seconds_of(call, calls))
        rounds.sort()
        return rounds[len(rounds) // 2]


def attention(bench, args):
    torch = bench.torch
    count, heads, length, dim = (1, 2, 48, 64) if args.tiny else (4, 32, 2048, 128)
    q, k, v = (torch.randn(count, heads, length, dim, device=bench.device, dtype=torch.bfloat16, requires_grad=True)
               for _ in range(3))
    sdpa = torch.nn.functional.scaled_dot_product_attention
    out = sdpa(q, k, v, is_causal=True)
    grad = torch.randn_like(out)
    flops = 2.0 * count * length * length / 2 * heads * dim
    with torch.no_grad():
        forward = bench.median_seconds(lambda: sdpa(q, k, v, is_causal=True), args.seconds / 2)
    backward = bench.median_seconds(lambda: torch.autograd.grad(out, (q, k, v), grad, retain_graph=True),
                                    args.seconds / 2)
    name = f"peer SDPA {count}x{length} {heads} heads of {dim}"
    bench.row(f"{name} forward", 2 * flops / forward * 1e-12, "TFLOP/s")
    bench.row(f"{name} backward", 5 * flops / backward * 1e-12, "TFLOP/s")


def product(bench, args):
    torch = bench.torch
    for n in (96,) if args.tiny else (4096, 8192):
        x, w = (torch.randn(n, n, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
        took = bench.median_seconds(lambda: x @ w.T, args.seconds / 2)
        bench.row(f"peer dense bf16 product {n}x{n}x{n}", 2.0 * n * n * n / took * 1e-12, "TFLOP/s")


def llama(bench, transformers, shape):
    torch = bench.torch
    hidden, intermediate, layers, heads, kv_heads, vocab, tied = SHAPES[shape]
    config = transformers.LlamaConfig(
        hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=kv_heads, vocab_size=vocab, max_position_embeddings=4096, tie_word_embeddings=tied,
        use_cache=False, attn_implementation="sdpa")
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(bench.device):
        model = transformers.LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    check(all(p.dtype == torch.bfloat16 for p in model.parameters()), "weights that are not bf16")
    return model


def in_four_bits(bench, bnb, model):
    """Matrix by matrix. From the processor: older versions quantize on the way to the GPU alone."""
    torch = bench.torch
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if not isinstance(child, torch.nn.Linear) or name == "lm_head":
                continue
            small = bnb.nn.Linear4bit(child.in_features, child.out_features, bias=False, device="meta",
                                      compute_dtype=torch.bfloat16, compress_statistics=True, quant_type="nf4")
            small.weight = bnb.nn.Params4bit(child.weight.data.cpu(), requires_grad=False, quant_type="nf4",
                                             compress_statistics=True)
            setattr(parent, name, small.to(bench.device))
    small = [m for m in model.modules() if isinstance(m, bnb.nn.Linear4bit)]
    check(len(small) == len(LINEARS) * model.config.num_hidden_layers, f"{len(small)} matrices of 4 bits")
    check(all(m.weight.quant_state.nested and m.weight.numel() * 2 == m.in_features * m.out_features for m in small),
          "matrices without 4 bits and double quantization")
    model.is_loaded_in_4bit = True
    return model


def adapted(bench, peft, model, rank):
    """The model under an adapter, its blocks computed again in backward."""
    torch = bench.torch
    for p in model.parameters():
        p.requires_grad_(False)
    # transformers renamed it in its fifth version.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    model.enable_input_require_grads()
    layers = model.config.num_hidden_layers
    model = peft.get_peft_model(model, peft.LoraConfig(r=rank, lora_alpha=16, lora_dropout=0.05,
                                                       target_modules=LINEARS, task_type="CAUSAL_LM"))
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    check(len(trained) == 2 * len(LINEARS) * layers and all(p.dtype == torch.float32 for p in trained),
          f"{len(trained)} matrices of adapters, or not in f32")
    return model, trained


def step(bench, args, bits):
    torch = bench.torch
    os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is asked of any hub
    libraries = [module(name) for name in ("transformers", "peft", "bitsandbytes")[:3 if bits == 4 else 2]]
    transformers, peft = libraries[:2]
    model = llama(bench, transformers, args.shape)
    if bits == 4:
        model = in_four_bits(bench, libraries[2], model)
    model, trained = adapted(bench, peft, model, args.rank)
    # One launch for all matrices, as Hugging Face's Trainer has it by default.
    optimizer = torch.optim.AdamW(trained, lr=2e-4, weight_decay=0.0, fused=bench.device == "cuda")
    ids = torch.randint(0, SHAPES[args.shape][5], (args.batch, args.tokens), device=bench.device)

    def one():
        with torch.autocast(device_type=bench.device, dtype=torch.bfloat16):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 0.3)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    calls = []
    watched = next(m for name, m in model.named_modules() if name.endswith("layers.0.mlp"))
    hook = watched.register_forward_pre_hook(lambda *_: calls.append(1))  # before: the second call is left early
    if bench.device == "cuda":  # what loading took is not a step's
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    loss = one().item()
    hook.remove()
    check(len(calls) == 2, f"a block that a step computes {len(calls)} times")
    check(loss == loss, "a loss that is no number")
    took = bench.median_seconds(one, args.seconds)
    notes = [f"{m.__name__} {m.__version__}" for m in libraries]
    if bench.device == "cuda":
        notes.append(f"{torch.cuda.max_memory_allocated() / 2**20:.0f} MiB allocated at most, "
                     f"{torch.cuda.max_memory_reserved() / 2**20:.0f} MiB held")
    what = "PEFT dense bf16" if bits == 16 else "PEFT + bitsandbytes"
    bench.row(f"peer {what} step {args.shape} {args.batch}x{args.tokens}", args.batch * args.tokens / took, "tokens/s",
              *notes)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("section", choices=["attention", "product", "step", "step4bit"])
    parser.add_argument("--shape", default="7b", choices=sorted(SHAPES))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    torch = module("torch")
    if not torch.cuda.is_available() and not args.tiny:
        leave("torch finds no GPU: no row of it")
    bench = Bench(torch)
    try:
        if args.section == "attention":
            attention(bench, args)
        elif args.section == "product":
            product(bench, args)
        else:
            step(bench, args, 4 if args.section == "step4bit" else 16)
    except torch.cuda.OutOfMemoryError:
        leave(f"{args.section} {args.shape} {args.batch}x{args.tokens} does not fit into this GPU: no row of it")


if __name__ == "__main__":
    main()
