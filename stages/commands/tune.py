"""Find, after `make repro`, the fastest INT8 recipe that the target's gate lets through, on this machine.

A search by Optuna's tree-structured Parzen estimator (Bergstra, Bardenet, Bengio & Kegl, "Algorithms for
Hyper-Parameter Optimization", 2011) over how weights and activations are quantized, which graph that is done to, and
how many of the most sensitive layers stay in fp32. It starts from FunASR's own recipe, scores on the tuning split, and
writes the winner into params.yaml only if it is better than what is there. `dvc repro` builds what params.yaml says.
"""

from __future__ import annotations

import difflib
import json
import math
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console
from rich.table import Table

from stages.commands import recipe_space, trials, yaml_lines
from stages.commands.recipe_space import Choice
from stages.commands.trials import Bench, Int8
from stages.core import graphs, layout, params, plan
from stages.core.errors import UserError
from stages.core.files import write_text
from stages.core.machine import cpu
from stages.core.params import PARAMS, yaml_text
from stages.core.params.gates import absolute_limit
from stages.core.speedups import describe_speedup, mean_speedup
from stages.core.statistics import loss

PART = "tune"
EXAMPLE = "kiln tune paraformer cpu_int8 --minutes 30"
SEED = 3
SECONDS = 0.3  # of timing for a case in a trial; the finalists get FINAL_SECONDS
FINAL_SECONDS = 2.0
FINALISTS = 3
BETTER = 1.02  # by less than two hundredths two timings of the same graph differ


@dataclass(frozen=True)
class Limits:
    """When the search ends: at whichever comes first.

    Raises:
        UserError: one of them is no number over 0.
    """

    minutes: float
    trials: int

    def __post_init__(self) -> None:
        """Check that both limits are numbers over 0."""
        for flag, found in (("--minutes", self.minutes), ("--trials", self.trials)):
            if not 0 < found < math.inf:
                raise UserError(f"tune: {flag}: found {found}, wanted a number over 0")


@dataclass(frozen=True)
class Tried:
    """One recipe: what was chosen, its accuracy on the tuning split, its speedups and bytes.

    violation: by how much it misses the gate's limits, in their own units added up; 0 passes. speedups: none where it
    does not pass, because there is no use in timing it.
    """

    choice: Choice
    recipe: Int8 | None
    violation: float
    loss: float
    speedups: dict[str, dict[str, Any]]
    bytes: int
    why: str = ""

    def score(self, *, smallest: bool) -> float:
        """Return what the search maximizes among recipes that pass: the negative size, or the mean speedup."""
        if smallest:
            return -float(self.bytes)
        return float(mean_speedup(self.speedups.values())["speedup"]) if self.speedups else 0.0


def add_arguments(parser: ArgumentParser) -> None:
    """Add the build, when to end the search, and whether the smallest or the fastest wins."""
    trials.add_build(parser)
    parser.add_argument("--minutes", type=float, default=10, help="how long to search, 10 by default")
    parser.add_argument("--trials", type=int, default=200, help="the most recipes to try")
    parser.add_argument("--smallest", action="store_true", help="the smallest artifact, not the fastest")
    parser.add_argument("--dry-run", action="store_true", help="do not write the winner into params.yaml")


def run(arguments: Namespace) -> None:
    """Search within the limits of the command line."""
    limits = Limits(minutes=arguments.minutes, trials=arguments.trials)
    tune(arguments.model, arguments.target, limits, smallest=arguments.smallest, dry_run=arguments.dry_run)


def tune(model: str, target: str, limits: Limits, *, smallest: bool, dry_run: bool) -> None:
    """Search, show the best beside what params.yaml has, and write it there if it is better.

    Raises:
        UserError: see `trials.open_bench`; or no recipe passed the gate.
    """
    with trials.open_bench(model, target) as bench:
        tried = search(bench, limits, smallest=smallest)
        passed = sorted((t for t in tried if t.violation == 0), key=lambda t: t.score(smallest=smallest), reverse=True)
        if not passed:
            nearest = min(tried, key=lambda t: t.violation)
            raise UserError(
                f"{bench.build}: none of {len(tried)} recipes passed the gate on the tuning split; the nearest, "
                f"{nearest.choice}, {nearest.why or f'misses it by {nearest.violation:.4f}'}"
            )
        present = _time_again(bench, _try(bench, _current_choice(bench), bench.recipe))
        finalists = [_time_again(bench, t) for t in passed[:FINALISTS]]
        best = max(finalists, key=lambda t: t.score(smallest=smallest))
        record = {"cpu": cpu(), "about": trials.subject(bench), "smallest": smallest, "present": _row(present)}
        trials.write(bench.build, PART, record | {"best": _row(best), "trials": [_row(t) for t in tried]})
        _show(bench, [("params.yaml", present), *((f"found {i}", t) for i, t in enumerate(finalists, 1))])
        margin = 1.0 if smallest else BETTER
        ahead = best.score(smallest=smallest) > present.score(smallest=smallest) * margin
        if present.violation == 0 and not ahead:
            print(f"{len(tried)} recipes tried; none is better than what params.yaml has")
            return
        _write(bench, best, dry_run=dry_run)


def search(bench: Bench, limits: Limits, *, smallest: bool) -> list[Tried]:
    """Try recipes until a limit is reached, FunASR's own first, each once, and return them in that order."""
    import optuna
    from tqdm import tqdm

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=SEED))
    known: dict[str, Tried] = {}
    study.enqueue_trial(recipe_space.FUNASR)
    ends, order = time.monotonic() + 60 * limits.minutes, recipe_space.order_layers(bench)
    bar = tqdm(total=limits.trials, desc=f"tune {bench.build}", unit="recipe", disable=None)
    asked = 0
    while len(known) < limits.trials and time.monotonic() < ends and asked < 10 * limits.trials:
        trial, asked = study.ask(), asked + 1
        choice = recipe_space.choose(trial, order)
        key = json.dumps(choice, sort_keys=True)
        if key not in known:
            known[key] = _try(bench, choice, recipe_space.build_recipe(bench, choice, order))
            bar.update()
        trial.set_constraint("gate", known[key].violation)
        study.tell(trial, known[key].score(smallest=smallest))
        good = [t.score(smallest=smallest) for t in known.values() if t.violation == 0]
        bar.set_postfix(passed=len(good), best=f"{max(good, default=0):.3g}")
    bar.close()
    return list(known.values())


def _current_choice(bench: Bench) -> Choice:
    """Describe the recipe of params.yaml as a point of the search space."""
    return {"graph": bench.line.graph, **bench.recipe.model_dump(exclude={"calibration_feeds"})}


def _try(bench: Bench, choice: Choice, recipe: Int8) -> Tried:
    try:
        folder = trials.quantize_graphs(bench, recipe, choice["graph"])
        metrics = trials.accuracy(bench, folder)
    except UserError as e:  # such as a recipe that leaves nothing to quantize
        return Tried(choice, None, float("inf"), float("inf"), {}, 0, str(e))
    violation = _violation(bench, metrics)
    speedups = trials.speedups(bench, folder, SECONDS) if violation == 0 else {}
    return Tried(choice, recipe, violation, loss(metrics[bench.headline]), speedups, graphs.size(folder))


def _time_again(bench: Bench, tried: Tried) -> Tried:
    """Time a recipe again and for longer, so that luck decides nothing; one that made nothing of use has no time."""
    if tried.recipe is None:
        return tried
    folder = trials.quantize_graphs(bench, tried.recipe, tried.choice["graph"])
    return replace(tried, speedups=trials.speedups(bench, folder, FINAL_SECONDS))


def _violation(bench: Bench, metrics: Mapping[str, Any]) -> float:
    """Return by how much the losses are beyond the limits of the target's gate.

    The losses themselves and not their intervals, which a tuning split is too small for: the gate has the last word.
    """
    p = bench.p
    target, family = p.targets[plan.derive(p).builds[bench.build].target], p.models[bench.line.model].family
    limits = p.gates[target.gate].accuracy[family]
    most = {name: absolute_limit(limit, metrics[name]) for name, limit in limits.items()}
    return sum(max(0.0, loss(metrics[name]) - limit) for name, limit in most.items())


def _row(tried: Tried) -> dict[str, Any]:
    recipe = tried.recipe and tried.recipe.model_dump(exclude_defaults=True)
    passed = tried.violation == 0
    known = {"graph": tried.choice["graph"], "recipe": recipe, "passed": passed, "bytes": tried.bytes}
    return known | ({"why": tried.why} if tried.why else {"loss": tried.loss, "speedups": tried.speedups})


def _show(bench: Bench, rows: list[tuple[str, Tried]]) -> None:
    cases = list(rows[0][1].speedups)
    table = Table("", "gate", f"loss of {bench.headline}", *cases, "bytes", "recipe", box=None)
    for name, tried in rows:
        times = (describe_speedup(tried.speedups[case]) for case in cases)
        recipe = json.dumps(_row(tried)["recipe"])
        passed = "pass" if tried.violation == 0 else "fail"
        table.add_row(name, passed, f"{tried.loss:+.4f}", *times, str(tried.bytes), f"{tried.choice['graph']} {recipe}")
    Console(width=150).print(table)


def _write(bench: Bench, best: Tried, *, dry_run: bool) -> None:
    """Put the winner into the model's entry of params.yaml, and print the difference."""
    line, old = bench.line, yaml_text.read(PARAMS)
    place, model = ("models", line.model), bench.p.models[line.model]
    recipe = _row(best)["recipe"] | {"graph": best.choice["graph"]}
    tuned = {
        variant: {name: one.model_dump(exclude_defaults=True) for name, one in recipes.items()}
        for variant, recipes in model.tuned.items()
    }
    tuned[line.variant] = tuned.get(line.variant, {}) | {line.recipe: recipe}
    rows = [f"tuned: {json.dumps(tuned)}  # {layout.search(bench.build)}"]  # JSON is YAML, and says the types
    put = yaml_lines.replace if model.tuned else yaml_lines.insert
    new = put(old, place, "tuned", rows)
    params.parse(new, f"{PARAMS} with {bench.build} tuned")
    changed = difflib.unified_diff(old.splitlines(), new.splitlines(), str(PARAMS), str(PARAMS), n=1, lineterm="")
    print("\n".join(changed))
    if not dry_run:
        write_text(PARAMS, new)
        plan.write(params.load())
        print(f"next: `make repro`, and commit {PARAMS} with {layout.search(bench.build)}")
