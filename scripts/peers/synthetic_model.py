#!/usr/bin/env python3
"""Writes a LLaMA of TinyLlama's shape, 1.1 billion random weights, as a Hugging Face folder: for speed alone.

    synthetic_model.py FOLDER

config.json and model.safetensors (bf16, 2.2 GB), no tokenizer; the same bytes every time. Needs numpy.
`write_gguf` makes the same model a GGUF file, as llama.cpp's converter would, which insists on a tokenizer.
"""
import json
import pathlib
import sys

import numpy as np

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 2048,
    "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 32, "num_key_value_heads": 4,
    "vocab_size": 32000, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2,
}
# Of a layer, below "model.layers.N.", and what they are called in a GGUF file.
NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}
OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
ONE = 0x3F80  # 1.0 as bf16


def shapes(c):
    hidden, ff, vocab = c["hidden_size"], c["intermediate_size"], c["vocab_size"]
    kv = hidden // c["num_attention_heads"] * c["num_key_value_heads"]
    layer = {
        "input_layernorm": [hidden], "self_attn.q_proj": [hidden, hidden], "self_attn.k_proj": [kv, hidden],
        "self_attn.v_proj": [kv, hidden], "self_attn.o_proj": [hidden, hidden], "post_attention_layernorm": [hidden],
        "mlp.gate_proj": [ff, hidden], "mlp.up_proj": [ff, hidden], "mlp.down_proj": [hidden, ff],
    }
    out = {"model.embed_tokens": [vocab, hidden]}
    for i in range(c["num_hidden_layers"]):
        out.update({f"model.layers.{i}.{name}": shape for name, shape in layer.items()})
    return out | {"model.norm": [hidden], "lm_head": [vocab, hidden]}


def random_bf16(random, shape):
    """Norms are one; else sign, mantissa and exponent are random, magnitudes from 2^-8 to 2^-4."""
    if len(shape) == 1:
        return np.full(shape, ONE, np.uint16)
    bits = random.integers(0, 1 << 16, shape, np.uint16)
    return (bits & 0x8000) | (0x3B80 + (bits & 0x01FF))


def write_folder(folder):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    header, at = {}, 0
    for name, shape in shapes(CONFIG).items():
        end = at + 2 * int(np.prod(shape))
        header[name + ".weight"] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    random = np.random.Generator(np.random.SFC64(7))
    with open(folder / "model.safetensors", "wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for shape in shapes(CONFIG).values():
            random_bf16(random, shape).tofile(out)
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=1) + "\n", encoding="utf-8")


def gguf_name(name):
    parts = name.split(".")
    if parts[:2] == ["model", "layers"]:
        return f"blk.{parts[2]}.{NAMES['.'.join(parts[3:-1])]}.weight"
    return OUTER[".".join(parts[:-1])] + ".weight"


def write_gguf(folder, out):
    """A folder of bf16 tensors in one file, as GGUF of bf16. REQUIRES: the gguf package can be imported."""
    import gguf

    folder = pathlib.Path(folder)
    c = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    heads = c["num_attention_heads"]
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(c["vocab_size"])
    writer.add_context_length(c["max_position_embeddings"])
    writer.add_embedding_length(c["hidden_size"])
    writer.add_block_count(c["num_hidden_layers"])
    writer.add_feed_forward_length(c["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(c["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(c["rms_norm_eps"])
    writer.add_rope_dimension_count(c["hidden_size"] // heads)
    writer.add_rope_freq_base(c["rope_theta"])
    mapped = np.memmap(folder / "model.safetensors", np.uint8, "r")
    begin = 8 + int.from_bytes(mapped[:8].tobytes(), "little")
    for name, info in json.loads(mapped[8:begin].tobytes()).items():
        first, last = info["data_offsets"]
        tensor = mapped[begin + first:begin + last].view(np.uint16).reshape(info["shape"])
        if len(info["shape"]) == 1:  # llama.cpp wants norms as f32
            writer.add_tensor(gguf_name(name), (tensor.astype(np.uint32) << 16).view(np.float32))
            continue
        turned = heads if ".q_proj." in name else c["num_key_value_heads"] if ".k_proj." in name else 0
        if turned:  # there, the two elements that are rotated together are neighbours
            rows, columns = info["shape"]
            tensor = tensor.reshape(turned, 2, rows // turned // 2, columns).swapaxes(1, 2).reshape(rows, columns)
        writer.add_tensor(gguf_name(name), np.ascontiguousarray(tensor).view(np.uint8),
                          raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    write_folder(sys.argv[1])
