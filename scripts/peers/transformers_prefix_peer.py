#!/usr/bin/env python3
"""Measures a plain loop over transformers beside `qlora bench` on five-shot MMLU in bf16, and writes what
`qlora bench --peers` reads.

    transformers_prefix_peer.py --qlora build/bin/qlora --model DIR --out FILE [--rounds 3] [--quick]

What somebody writes who knows that a subject's questions begin alike: the keys and values of the tokens in common are
computed once a subject, and copied for every question. One thread. Needs torch and transformers.
"""
import copy
import json
import os
import pathlib
import time

import turns

ROW = "mmlu/prefix_loop/bf16/t1"
# bf16 rounds differently on the two sides, and a copied cache flips answers that are nearly equal.
BOUNDS = (0.5, 0.1, 6)


def in_common(sequences):
    """Tokens that all begin with; one is left to compute for each."""
    return min(len(os.path.commonprefix(sequences)), min(len(s) for s in sequences) - 1)


def answers(model, letters, questions):
    import torch

    shared = in_common([q["tokens"] for q in questions])
    prefix = model(torch.tensor([questions[0]["tokens"][:shared]]), use_cache=True, logits_to_keep=1).past_key_values
    for question in questions:
        rest = torch.tensor([question["tokens"][shared:]])
        logits = model(rest, past_key_values=copy.deepcopy(prefix), use_cache=True, logits_to_keep=1).logits[0, -1]
        yield torch.log_softmax(logits.float(), -1)[letters].tolist()


def measure(args):
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(args.threads)
    asked = json.loads(pathlib.Path(args.measure).read_text(encoding="utf-8"))
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.bfloat16).eval()
    right, log_probs = 0, []
    # One thread is timed in the processor's seconds, as ours is: a neighbour's load does not stretch them.
    with torch.inference_mode():
        model(torch.tensor([[1, 2, 3]]))
        begin = time.process_time()
        for subject in asked["subjects"]:
            for row, answer in zip(subject["questions"], answers(model, asked["letters"], subject["questions"])):
                right += answer.index(max(answer)) == row["answer"]
                log_probs.append(answer)
        seconds = time.process_time() - begin
    questions = len(log_probs)
    return {"questions/s": questions / seconds, "right": right, "questions": questions, "log_probs": log_probs}


def peer_name(version):
    return f"transformers {version('transformers')} with a copied cache, torch {version('torch')}, bf16"


if __name__ == "__main__":
    turns.main(__doc__, __file__, ROW, measure, peer_name, BOUNDS, threads=1)
