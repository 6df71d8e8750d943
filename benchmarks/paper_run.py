"""Find the missing rows of benchmarks/paper.py, make what they need, and make and save them."""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from training.small_models import UNI3C

from .paper_conditions import FULL, QUICK, STRATEGIES, Condition, Experiment, Scale, experiments
from .paper_cost import Cost, measure_cost
from .paper_report import write_report
from .paper_rows import Row, append_row, read_rows
from .paper_variants import PARTS, FineTuning, make_part, train_variant
from .paper_videos import WEIGHTS, fingerprint, make_row

REPO = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Task:
    """A row to make."""

    experiment: str
    condition: Condition
    seed: int


def make_task(task: Task, tuning: FineTuning, models: str) -> Row:
    """Make the row of a task."""
    started = time.monotonic()
    numbers, curves = make_row(task.condition, task.seed, tuning.models, tuning.variant(task.condition.variant))
    return Row(
        experiment=task.experiment,
        condition=task.condition.name,
        setting=task.condition.to_json(),
        seed=task.seed,
        models=models,
        seconds=time.monotonic() - started,
        numbers=numbers,
        curves=curves,
    )


def check_models(models: Path) -> None:
    """Exit if a file is missing that every row needs."""
    missing = [name for name in WEIGHTS if not (models / name).is_file()]
    if missing:
        raise SystemExit(f"{models} lacks {', '.join(missing)}; train the small models or choose another --models")


def open_tasks(chosen: Sequence[Experiment], rows: Path, models: str) -> list[Task]:
    """Return the missing rows, all conditions of a seed together."""
    tasks = []
    for experiment in chosen:
        done = {row.key for row in read_rows(rows, experiment.name, models)}
        for seed in range(experiment.first_seed, experiment.first_seed + experiment.seeds):
            for condition in experiment.conditions:
                if (experiment.name, condition.to_json(), seed, models) not in done:
                    tasks.append(Task(experiment.name, condition, seed))
    return tasks


def available(experiment: Experiment, models: Path) -> Experiment:
    """Return `experiment` without the conditions that need a missing file."""
    if (models / UNI3C).is_file():
        return experiment
    kept = tuple(c for c in experiment.conditions if not c.uni3c)
    if len(kept) < len(experiment.conditions):
        say(f"{experiment.name}: Uni3C is left out, there is no {UNI3C}")
    return replace(experiment, conditions=kept)


def in_parallel(threads: int, work: Callable[..., object], arguments: Sequence[tuple]) -> Iterator[tuple[int, object]]:
    """Yield (index, result) of each call when it is done. With one thread all calls run in this process."""
    if threads == 1 or len(arguments) < 2:
        for index, given in enumerate(arguments):
            yield index, work(*given)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(threads, mp_context=context, initializer=torch.set_num_threads, initargs=(1,))
    try:
        futures = {pool.submit(work, *given): index for index, given in enumerate(arguments)}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def make_variants(tuning: FineTuning, tasks: Sequence[Task], threads: int) -> None:
    """Make the fine-tuned models that `tasks` need."""
    wanted = [name for name in STRATEGIES if any(task.condition.variant == name for task in tasks)]
    missing = [name for name in wanted if not tuning.is_done(name)]
    if not missing:
        return
    say(f"{tuning.scale.samples} samples for the fine-tuning")
    for index, _ in in_parallel(threads, make_part_only, [(tuning, part) for part in range(PARTS)]):
        say(f"samples: part {index + 1} of {PARTS}")
    say(f"{len(missing)} models, {tuning.scale.steps} steps each")
    for index, _ in in_parallel(threads, train_variant, [(tuning, name) for name in missing]):
        say(f"trained with {missing[index]}")


def make_part_only(tuning: FineTuning, part: int) -> None:
    """Make a part of the samples, which are stored on disk."""
    make_part(tuning, part)


def run_tasks(tasks: Sequence[Task], tuning: FineTuning, models: str, rows: Path, threads: int) -> None:
    """Make and save the rows."""
    for number, (_, row) in enumerate(in_parallel(threads, make_task, [(t, tuning, models) for t in tasks]), 1):
        assert isinstance(row, Row)
        append_row(rows, row)
        sync = row.numbers.get("sync")
        say(
            f"{number} of {len(tasks)}: {row.experiment}, {row.condition}, character {row.seed}: "
            f"sync {'-' if sync is None else f'{sync:.3f}'}, {row.seconds:.1f} s"
        )


def print_plan(tasks: Sequence[Task], tuning: FineTuning, threads: int) -> None:
    """Print the tasks, with an estimated time from the speed of the models on this machine."""
    if not tasks:
        say("every row is there")
        return
    cost: Cost = measure_cost(tuning.models)
    total = 0.0
    for name in dict.fromkeys(task.experiment for task in tasks):
        own = [task for task in tasks if task.experiment == name]
        seconds = sum(cost.row(task.condition) for task in own)
        total += seconds
        say(f"{name:9} {len(own):4} rows, about {seconds / threads / 60:5.1f} minutes")
    missing = {t.condition.variant for t in tasks if t.condition.variant and not tuning.is_done(t.condition.variant)}
    if missing:
        seconds = cost.fine_tuning(tuning.scale, len(missing))
        total += seconds
        say(f"fine-tuning {len(missing):2} models, about {seconds / threads / 60:5.1f} minutes")
    say(f"in all about {total / threads / 60:.0f} minutes with {threads} at a time")


def say(line: str) -> None:
    """Print one line of progress without buffering."""
    print(f"[paper] {time.strftime('%H:%M:%S')} {line}", flush=True)


def parse(arguments: Sequence[str] | None, about: str) -> argparse.Namespace:
    """Parse the command line."""
    names = [experiment.name for experiment in experiments()]
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=REPO / "small_models", help="folder of the small models")
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="experiments to run")
    parser.add_argument("--quick", action="store_true", help="few characters, short videos, little fine-tuning")
    parser.add_argument("--plan", action="store_true", help="only print the missing rows and their time")
    parser.add_argument("--report", action="store_true", help="only write tables and plots")
    parser.add_argument("--threads", type=int, default=2, help="rows made at a time, one thread each")
    parser.add_argument(
        "--recordings", type=Path, nargs="*", default=[], help="sound files of real voices, 10 s or more"
    )
    parser.add_argument("--rows", type=Path, help="where rows are saved (default: benchmarks/rows)")
    parser.add_argument("--work", type=Path, default=REPO / ".training" / "paper", help="fine-tuned models and samples")
    parser.add_argument("--page", type=Path, help="page for the tables (default: benchmarks/RESULTS.md)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None, about: str = "") -> None:
    """Run the command."""
    options = parse(arguments, about)
    torch.set_num_threads(1)
    scale: Scale = QUICK if options.quick else FULL
    rows = options.rows or (options.work / "quick_rows" if options.quick else REPO / "benchmarks" / "rows")
    page = options.page or (rows / "RESULTS.md" if options.quick else REPO / "benchmarks" / "RESULTS.md")
    every = experiments([str(file) for file in options.recordings], options.report or shutil.which("flite") is not None)
    if not options.report:
        check_models(options.models)
        chosen = [available(scale.reduce(e), options.models) for e in every if e.name in options.only]
        models = fingerprint(options.models)
        tuning = FineTuning(options.models, options.work / f"{models}-{scale.samples}-{scale.steps}", scale)
        tasks = open_tasks(chosen, rows, models)
        print_plan(tasks, tuning, options.threads)
        if options.plan:
            return
        make_variants(tuning, tasks, options.threads)
        run_tasks(tasks, tuning, models, rows, options.threads)
    for file in write_report([scale.reduce(e) for e in every], rows, page):
        say(f"wrote {file}")
