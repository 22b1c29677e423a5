#!/usr/bin/env python3
"""Measures lm-evaluation-harness beside `qlora bench` on five-shot MMLU in f32, and writes what `qlora bench --peers`
reads.

    lm_eval_peer.py --qlora build/bin/qlora --model DIR --out FILE [--rounds 3] [--threads 2] [--quick]

Its own MMLU tasks, on the questions that `qlora bench --export` writes; timed from the tasks to their scores, as ours is,
without loading. Needs lm_eval (0.4.13), torch and transformers in the Python that runs this script.
"""
import json
import pathlib
import tempfile
import time

import turns

ROW = "mmlu/lm_eval/f32/all-threads"
# Both in f32: every log-probability within 1e-3, and no prediction differs.
BOUNDS = (1e-3, 1e-3, 0)


def local_tasks(questions, folder):
    """Writes tasks that are lm-eval's own mmlu_SUBJECT, but for reading rows from files; returns their names."""
    import lm_eval

    own = pathlib.Path(lm_eval.__file__).parent / "tasks/mmlu/default"
    names = []
    for subject in json.loads(pathlib.Path(questions).read_text(encoding="utf-8"))["subjects"]:
        files = {}
        for split, rows in (("test", subject["questions"]), ("dev", subject["dev"])):
            files[split] = str(pathlib.Path(folder) / f"{subject['name']}_{split}.jsonl")
            lines = [json.dumps({k: row[k] for k in ("question", "choices", "answer")}) for row in rows]
            pathlib.Path(files[split]).write_text("\n".join(lines) + "\n", encoding="utf-8")
        task = {"include": str(own / f"mmlu_{subject['name']}.yaml"), "task": f"local_{subject['name']}",
                "dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": files}, "num_fewshot": 5}
        names.append(task["task"])
        (pathlib.Path(folder) / f"{names[-1]}.yaml").write_text(json.dumps(task), encoding="utf-8")  # JSON is YAML
    return names


def measure(args):
    import torch
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    torch.set_num_threads(args.threads)
    model = HFLM(pretrained=args.model, dtype="float32", device="cpu", batch_size=1)
    with tempfile.TemporaryDirectory() as folder:
        names = local_tasks(args.measure, folder)
        tasks = TaskManager(include_path=folder, include_defaults=False).load(names)
        begin = time.perf_counter()
        results = evaluate(model, tasks, bootstrap_iters=0, log_samples=True)
        seconds = time.perf_counter() - begin
    counts = {name: n["effective"] for name, n in results["n-samples"].items()}
    right = sum(round(results["results"][name]["acc,none"] * n) for name, n in counts.items())
    questions = sum(counts.values())
    samples = [sorted(results["samples"][name], key=lambda s: s["doc_id"]) for name in names]
    log_probs = [[float(answer[0]) for answer in s["filtered_resps"]] for rows in samples for s in rows]
    return {"questions/s": questions / seconds, "right": right, "questions": questions, "log_probs": log_probs}


def peer_name(version):
    return f"lm_eval {version('lm_eval')}, transformers {version('transformers')}, torch {version('torch')}, f32"


if __name__ == "__main__":
    turns.main(__doc__, __file__, ROW, measure, peer_name, BOUNDS)
