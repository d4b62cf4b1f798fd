"""Derive plan.yaml, which dvc.yaml iterates, from params.yaml; `kiln repro` and `kiln add` do it too."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from stages.core import params, plan

EXAMPLE = "kiln plan"


def add_arguments(_parser: ArgumentParser) -> None:
    """Add none: the command takes no arguments."""


def run(_arguments: Namespace) -> None:
    """Write plan.yaml where it is not what params.yaml asks for."""
    print(f"{plan.PLAN}: {'written' if plan.write(params.load()) else 'is as params.yaml asks for'}")
