#!/usr/bin/env python3
"""What PyTorch, PEFT and bitsandbytes reach on this machine's GPU, on the work of qlora_device_bench and qlora_gpu_bench.

    gpu_peer.py attention|product|step|step4bit [--shape 7b] [--batch 4] [--tokens 512] [--seconds 10] [--tiny]

One section a call; rows as our own programs write them, name, value and unit in columns. Says in one line what is
missing in this Python, and ends with 0 then. --tiny: small sizes, on the processor where there is no GPU.
"""
import argparse
import sys
import time

SHAPES = {  # hidden, intermediate, layers, heads, kv heads, vocabulary
    "tiny": (128, 160, 2, 2, 1, 320),
    "135m": (576, 1536, 30, 9, 3, 49152),
    "1.1b": (2048, 5632, 22, 32, 4, 32000),
    "7b": (4096, 11008, 32, 32, 32, 32000),
    "13b": (5120, 13824, 40, 40, 40, 32000),
}
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def row(name, value, unit, note=""):
    print(f"{name:<52} {value:>10.5g} {unit:<10} {note}".rstrip(), flush=True)


def versions(*modules):
    return ", ".join(f"{m.__name__} {m.__version__}" for m in modules)


def leave(why):
    print(f"peer: {why}", flush=True)
    sys.exit(0)


def median_seconds(torch, call, seconds):
    """Of one call, after two to warm up."""
    sync = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    for _ in range(2):
        call()
    sync()
    times, begin = [], time.monotonic()
    while not times or (time.monotonic() - begin < seconds and len(times) < 200):
        start = time.monotonic()
        call()
        sync()
        times.append(time.monotonic() - start)
    times.sort()
    return times[len(times) // 2]


def attention(torch, device, tiny, seconds):
    count, heads, length, dim = (1, 2, 48, 64) if tiny else (4, 32, 2048, 128)
    q, k, v = (torch.randn(count, heads, length, dim, device=device, dtype=torch.bfloat16, requires_grad=True)
               for _ in range(3))
    sdpa = torch.nn.functional.scaled_dot_product_attention
    out = sdpa(q, k, v, is_causal=True)
    grad = torch.randn_like(out)
    flops = 2.0 * count * length * length / 2 * heads * dim
    with torch.no_grad():
        forward = median_seconds(torch, lambda: sdpa(q, k, v, is_causal=True), seconds / 2)
    backward = median_seconds(
        torch, lambda: torch.autograd.grad(out, (q, k, v), grad, retain_graph=True), seconds / 2)
    name = f"peer SDPA {count}x{length} {heads} heads of {dim}"
    row(f"{name} forward", 2 * flops / forward * 1e-12, "TFLOP/s", f"{device}, {versions(torch)}")
    row(f"{name} backward", 5 * flops / backward * 1e-12, "TFLOP/s", f"{device}, {versions(torch)}")


def product(torch, device, tiny, seconds):
    for n, m in ((64, 64),) if tiny else ((4096, 4096), (8192, 8192)):
        x = torch.randn(m, n, device=device, dtype=torch.bfloat16)
        w = torch.randn(n, n, device=device, dtype=torch.bfloat16)
        took = median_seconds(torch, lambda: x @ w.T, seconds / 2)
        row(f"peer dense bf16 product {m}x{n}x{n}", 2.0 * m * n * n / took * 1e-12, "TFLOP/s",
            f"{device}, {versions(torch)}")


def llama(torch, transformers, shape, device):
    hidden, intermediate, layers, heads, kv_heads, vocab = SHAPES[shape]
    config = transformers.LlamaConfig(
        hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=kv_heads, vocab_size=vocab, max_position_embeddings=4096, use_cache=False,
        attn_implementation="sdpa")
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = transformers.LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    return model


def in_four_bits(torch, bnb, model, device):
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if not isinstance(child, torch.nn.Linear) or name == "lm_head":
                continue
            small = bnb.nn.Linear4bit(child.in_features, child.out_features, bias=False,
                                      compute_dtype=torch.bfloat16, compress_statistics=True, quant_type="nf4")
            small.weight = bnb.nn.Params4bit(child.weight.data.cpu(), requires_grad=False, quant_type="nf4",
                                             compress_statistics=True)
            setattr(module, name, small.to(device))
    model.is_loaded_in_4bit = True
    return model


def step(torch, device, args, bits):
    try:
        import peft
        import transformers
        if bits == 4:
            import bitsandbytes as bnb
    except ImportError as e:
        leave(f"no {e.name} in this Python: no row of it")
    model = llama(torch, transformers, args.shape, device)
    if bits == 4:
        model = in_four_bits(torch, bnb, model, device)
    for p in model.parameters():
        p.requires_grad_(False)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.enable_input_require_grads()
    model = peft.get_peft_model(model, peft.LoraConfig(r=64, lora_alpha=16, lora_dropout=0.05, target_modules=LINEARS,
                                                       task_type="CAUSAL_LM"))
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-4)
    ids = torch.randint(0, SHAPES[args.shape][5], (args.batch, args.tokens), device=device)

    def one():
        with torch.autocast(device_type=device, dtype=torch.bfloat16):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 0.3)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    took = median_seconds(torch, one, args.seconds)
    what = "PEFT dense bf16" if bits == 16 else "PEFT + bitsandbytes"
    with_what = versions(torch, transformers, peft, *([bnb] if bits == 4 else []))
    peak = f"{torch.cuda.max_memory_allocated() / 2**20:.0f} MiB allocated at most, " if device == "cuda" else ""
    row(f"peer {what} step {args.shape} {args.batch}x{args.tokens}", args.batch * args.tokens / took, "tokens/s",
        f"{peak}{device}, {with_what}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("section", choices=["attention", "product", "step", "step4bit"])
    parser.add_argument("--shape", default="7b", choices=sorted(SHAPES))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    try:
        import torch
    except ImportError:
        leave("no torch in this Python: no row of it")
    if not torch.cuda.is_available() and not args.tiny:
        leave("torch finds no GPU: no row of it")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if args.section == "attention":
        attention(torch, device, args.tiny, args.seconds)
    elif args.section == "product":
        product(torch, device, args.tiny, args.seconds)
    else:
        step(torch, device, args, 4 if args.section == "step4bit" else 16)


if __name__ == "__main__":
    main()
