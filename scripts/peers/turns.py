"""What the peers of one row have in common: ours and theirs in turn (A B A B ...), each a process of its own, and pairs
written for `qlora bench --peers`, so that the ratio is taken pair by pair; with every pair, whether both computed the
same. Not run by itself.
"""
import argparse
import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import tempfile


def arguments(about):
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--qlora")
    parser.add_argument("--model", required=True)
    parser.add_argument("--out")
    parser.add_argument("--rows", default="", help="beginnings of row names, after commas; nothing is done for others")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="three questions of each subject, one round")
    parser.add_argument("--measure", help=argparse.SUPPRESS)  # in a measuring process: the file of questions
    args = parser.parse_args()
    if not args.measure and not (args.qlora and args.out):
        parser.error("--qlora and --out are required")
    return args


def run_json(command, environment=None):
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout[done.stdout.index("{"):])


def run_ours(command, row):
    """The row that the command measures, and what it computed."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "outcomes.json"
        rows = run_json([str(c) for c in command] + ["--json", "--outcomes", str(file)])["rows"]
        return rows[0], json.loads(file.read_text(encoding="utf-8")).get(row, {})


def compare_answers(ours, theirs, furthest, mean, flips):
    """(agree, in words) of two lists of the letters' four log-probabilities, question by question."""
    if len(ours) != len(theirs):
        return False, f"{len(ours)} questions on our side, {len(theirs)} on the peer's"
    apart = [abs(a - b) for one, other in zip(ours, theirs) for a, b in zip(one, other)]
    flipped = sum(one.index(max(one)) != other.index(max(other)) for one, other in zip(ours, theirs))
    words = (f"log-probabilities of {len(ours)} x 4 letters differ by {max(apart):.2g} at most (bound {furthest:g}) and "
             f"{sum(apart) / len(apart):.2g} in the mean ({mean:g}), {flipped} predictions (at most {flips})")
    return max(apart) <= furthest and sum(apart) / len(apart) <= mean and flipped <= flips, words


def run_peer(args, script, questions, threads):
    command = [sys.executable, script, "--measure", str(questions), "--model", args.model, "--threads", str(threads)]
    environment = dict(os.environ, OMP_NUM_THREADS=str(threads), HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1",
                       TOKENIZERS_PARALLELISM="false", TQDM_DISABLE="1", PYTHONWARNINGS="ignore")
    return run_json(command, environment)


def main(about, script, row, measure, peer_name, bounds, threads=None):
    """What such a script does. `measure(args)`: {"questions/s": .., "right": .., "questions": .., "log_probs": [[..]]},
    in a process of its own; `peer_name(version)`, where version(PACKAGE) is an installed package's; `bounds`: of
    compare_answers; `threads` of the peer, if not all."""
    args = arguments(about)
    if args.measure:
        print(json.dumps(measure(args)))
    else:
        take_turns(args, script, row, threads or args.threads, peer_name(importlib.metadata.version), bounds)


def take_turns(args, script, row, threads, peer_name, bounds):
    """Writes args.out."""
    if not any(row.startswith(r) for r in args.rows.split(",")):
        return
    quick = ["--quick"] if args.quick else []
    pair = {"row": row, "peer_name": peer_name, "peer": [], "ours": [], "agree": True, "compared": ""}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([args.qlora, "bench", "--export", folder, "--model", args.model] + quick, check=True)
        questions = pathlib.Path(folder) / "mmlu.json"
        if not questions.exists():
            sys.exit("no questions: QLORA_TEST_DATA must name a folder with 03_mmlu/original_csv")
        for number in range(1 if args.quick else args.rounds):
            ours, computed = run_ours([args.qlora, "bench", "--rows", row, "--model", args.model, "--threads",
                                       args.threads] + quick, row)
            theirs = run_peer(args, script, questions, threads)
            agree, words = compare_answers(computed["log_probs"], theirs["log_probs"], *bounds)
            if pair["agree"]:  # the first that disagrees is told
                pair.update(agree=agree, compared=words)
            pair["ours"].append(ours["ours"])
            pair["peer"].append(theirs["questions/s"])
            print(f"round {number + 1} {row}: ours {ours['ours']:.3g}, peer {theirs['questions/s']:.3g} questions/s "
                  f"({theirs['right']} of {theirs['questions']} right), load {os.getloadavg()[0]:.1f}; "
                  f"{'' if agree else 'DISAGREE: '}{words}", file=sys.stderr)
            # What is measured is kept, whatever happens next.
            pathlib.Path(args.out).write_text(json.dumps([pair], indent=1) + "\n", encoding="utf-8")
