"""`make scale`: the catalogue's names, and what one run of it is told."""

from __future__ import annotations

import pytest

from benchmarks import scale
from stages.commands import catalogue


def test_without_a_model_the_names_are_printed(capsys: pytest.CaptureFixture[str]):
    scale.main([])
    assert capsys.readouterr().out.split()[-len(catalogue.models()) :] == list(catalogue.models())


def test_an_unknown_model_is_refused_with_the_name_that_was_meant():
    with pytest.raises(SystemExit, match="no model 'paraformer_lage'; did you mean 'paraformer_large'"):
        scale.main(["paraformer_lage"])
