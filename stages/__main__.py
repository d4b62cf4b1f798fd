"""`python -m stages COMMAND`: what a person runs by hand, from the repository's root."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from stages.core.errors import entrypoint

LAYOUTS = {
    "kaldi": "wav.scp, text, utt2spk and perhaps segments",
    "aishell": "data_aishell or a part of it, such as wav/test",
    "librispeech": "SPEAKER/CHAPTER/*.trans.txt with FLAC files",
    "common-voice": "validated.tsv and clips/, or another table beside clips/",
}


def main(argv: Sequence[str]) -> None:
    """`python -m stages COMMAND`, of which `--help` lists what there is."""
    parser = argparse.ArgumentParser(prog="python -m stages", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    pin = commands.add_parser(
        "pin", help="write the size and digest of a model's or data set's files to pins/NAME.json"
    )
    pin.add_argument("names", nargs="+", metavar="NAME", help="of params.yaml or stages/catalogue.yaml")
    pin.add_argument("--force", action="store_true", help="accept other bytes for a revision that was pinned before")
    add = commands.add_parser("add", help="add a model and its builds to params.yaml")
    add.add_argument("model", metavar="NAME", help="of params.yaml or stages/catalogue.yaml, or a new one with --from")
    add.add_argument("--from", dest="origin", metavar="DIR", help="a FunASR checkpoint, or OWNER/MODEL@REVISION")
    add.add_argument("--targets", metavar="A,B", help="of params.yaml; those of other models of the family by default")
    add.add_argument("--dataset", metavar="D", help="of params.yaml; set at every place that has the model")
    add.add_argument("--license", metavar="L", help="where the checkpoint's README.md does not say it")
    add.add_argument("--dry-run", action="store_true", help="print the lines and write nothing")
    data = commands.add_parser("data", help="make a data set of your own speech").add_subparsers(
        dest="action", required=True, metavar="ACTION"
    )
    imported = data.add_parser("import", help="write manifests and WAV files to data/NAME, and NAME into params.yaml")
    imported.add_argument("name", metavar="NAME", help="of the data set")
    layouts = imported.add_mutually_exclusive_group(required=True)
    for flag, what in LAYOUTS.items():
        layouts.add_argument(f"--{flag}", metavar="DIR", help=what)
    imported.add_argument("--items", metavar="C,T,E", default="100,100,500", help="at most, in each split: %(default)s")
    imported.add_argument("--seed", type=int, default=0, help="draws speakers and utterances: %(default)s")
    for name, what in (
        ("sensitivity", "what each layer costs at INT8"),
        ("tune", "search the best recipe"),
    ):
        search = commands.add_parser(name, help=f"{what}; after `make repro`")
        search.add_argument("model", metavar="MODEL", help="of params.yaml")
        search.add_argument("target", metavar="TARGET", help="an INT8 target that onnxruntime runs")
        if name == "tune":
            search.add_argument("--minutes", type=float, default=10, help="how long to search, 10 by default")
            search.add_argument("--trials", type=int, default=200, help="the most recipes to try")
            search.add_argument("--smallest", action="store_true", help="the smallest artifact, not the fastest")
            search.add_argument("--dry-run", action="store_true", help="do not write the winner into params.yaml")
    commands.add_parser("plan", help="derive plan.yaml, which says what runs, from params.yaml")
    repro = commands.add_parser("repro", help="build what changed, measure, report, release what passed")
    repro.add_argument(
        "arguments", nargs=argparse.REMAINDER, metavar="...", help="for `dvc repro`, such as report@cpu_int8"
    )
    _run(parser.parse_args(argv))


def _run(arguments: argparse.Namespace) -> None:
    if arguments.command == "pin":
        from stages.commands.pin import pin

        for name in arguments.names:
            pin(name, force=arguments.force)
    elif arguments.command == "sensitivity":
        from stages.commands.sensitivity import sensitivity

        sensitivity(arguments.model, arguments.target)
    elif arguments.command == "tune":
        from stages.commands.tune import Limits, tune

        limits = Limits(minutes=arguments.minutes, trials=arguments.trials)
        tune(arguments.model, arguments.target, limits, smallest=arguments.smallest, dry_run=arguments.dry_run)
    elif arguments.command == "data":
        from stages.commands.data import import_, items_of

        layout, origin = next((flag, place) for flag in LAYOUTS if (place := vars(arguments)[flag.replace("-", "_")]))
        items = items_of(arguments.items)
        import_(arguments.name, layout.replace("-", "_"), Path(origin), items, arguments.seed)
    elif arguments.command == "plan":
        from stages.core import params, plan

        print(f"{plan.PLAN}: {'written' if plan.write(params.load()) else 'is as params.yaml asks for'}")
    elif arguments.command == "repro":
        from stages.commands.repro import repro

        repro(arguments.arguments)
    else:
        from stages.commands.add import add

        targets = arguments.targets.split(",") if arguments.targets else None
        chosen = {"dataset": arguments.dataset, "license_": arguments.license}
        add(arguments.model, targets, origin=arguments.origin, dry_run=arguments.dry_run, **chosen)


if __name__ == "__main__":
    entrypoint(main)
