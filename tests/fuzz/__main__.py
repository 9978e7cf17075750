"""Run mutated inputs of every kind: ``python -m tests.fuzz --cases 100000 --jobs 2``."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

from tests.fuzz import corpus, place
from tests.fuzz.kind import all_kinds
from tests.fuzz.run import Run, State, short, table, tried
from tests.fuzz.worker import kind_at, workers


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="up to which number (default 10000)")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes (default: the cores)")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn (default 0)")
    parser.add_argument("--resume", type=Path, help="file that keeps what is done; a run that was stopped goes on")
    parser.add_argument("--findings", type=Path, default=Path("build/fuzz"), help="folder for findings (build/fuzz)")
    parser.add_argument("--json", type=Path, help="figures to a file")
    parser.add_argument("--again", metavar="NUMBER_OR_FILE", nargs="+", help="only these cases; say what comes of them")
    return parser


def _again(folder: Path, seed: int, which: list[str]) -> int:
    """Run single cases; 1 if one is a finding."""
    found = 0
    with workers(folder, 1) as (worker,):
        for word in which:
            if word.isdigit():
                kind, rng = kind_at(seed, int(word))
                with place.stand_ins(folder):
                    case = kind.draw(rng)
            else:
                raw = json.loads(Path(word).read_text())
                kind, case = all_kinds()[raw["kind"]], corpus.unpacked(raw)
            result = tried(worker, kind, case)
            found += result.finding
            print(f"{word}: {kind.name}: {result.outcome if result.finding else short(result)}")
    return min(found, 1)


def main() -> int:
    """Entry point; 1 if something was found."""
    args = _parser().parse_args()
    all_kinds()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name)
        place.make(folder)
        if args.again:
            return _again(folder, args.seed, args.again)
        try:
            state = State.load(args.resume, args.seed) if args.resume else State(args.seed)
        except ValueError as error:
            print(f"tests.fuzz: error: {error}", file=sys.stderr)
            return 2
        run = Run(folder, args.findings, state, args.resume, lambda line: print(line, file=sys.stderr, flush=True))
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: setattr(run, "stopped", True))
        state = run.cases(args.cases, args.jobs)
    print(table(state))
    if args.json:
        state.save(args.json)
    return min(sum(f.findings for f in state.kinds.values()), 1)


if __name__ == "__main__":
    raise SystemExit(main())
