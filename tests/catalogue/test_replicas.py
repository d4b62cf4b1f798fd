"""Every entry of the catalogue, as the hub has it, from `pin` to a release that FunASR's own runtime loads."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages import models
from stages.__main__ import main as command
from stages.commands import catalogue
from stages.core import graphs, layout, params
from stages.core.files import read_json
from stages.corpora import manifest
from stages.corpora.manifest import Recording
from stages.models import ct_transformer
from stages.models.ct_transformer import read_marks
from stages.models.protocols import Family
from stages.models.shared import checkpoint
from stages.runtimes import onnxruntime
from tests import consumers, funasr_cpp
from tests.hub import Hub, files_of
from tests.workspace import ROOT
from zoo import alone, replicas

DENSE = ("cpu_fp32", "cpu_int8")
TARGETS = dict.fromkeys(catalogue.models(), DENSE) | {
    "fsmn_vad": (*DENSE, "cpu_pruned"),  # the cheapest to export
    "campplus_zh_common": ("cpu_fp32", "cpu_int8_conv"),
}
ITEMS = {"calibration": 4, "tuning": 2, "evaluation": 7}
HURRIED: dict[str, dict[str, Any]] = {
    "prune": {"allocation": "uniform", "round_to": 1, "variations": 1} | {"distill_steps": 2, "validate_every": 1},
    "evaluate": {"resamples": 100},
    "benchmark": {"seconds": 0.01, "pairs": 5, "warmup": 1, "extra_blocks": 0},
}


@dataclass(frozen=True)
class Built:
    """A replica after all stages. releases: its release folder for each target."""

    name: str
    family: Family[Any]
    folder: Path
    checkpoint: Path
    recordings: list[Recording]
    releases: dict[str, Path]

    def score(self, folder: Path, recordings: Sequence[Recording]) -> list[Any]:
        """What Kiln hears with the graphs of a folder."""
        graph_set = graphs.read(folder)
        artifact = graph_set, onnxruntime.load(folder, graph_set)
        return self.family.score(self.checkpoint, artifact, self.family.MODES[0], recordings)


@pytest.fixture(scope="module", params=list(catalogue.models()))
def built(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_corpus: Path
) -> Iterator[Built]:
    """A replica on the hub, pinned, added and built in a repository that has the real params.yaml, with little data."""
    name = request.param
    folder, home = tmp_path_factory.mktemp("hub"), tmp_path_factory.mktemp("repository")
    replicas.make(name, folder, tiny=True)
    (source,) = [source for source in catalogue.models()[name].sources if source.kind == "modelscope"]
    with Hub({source.hub_id: {source.revision: files_of(folder)}}) as hub, pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("MODELSCOPE_ENDPOINT", hub.url)
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setenv("PYTHONPATH", str(ROOT))  # for the stages' own children
        yield build(name, folder, tiny_corpus)


def build(name: str, folder: Path, detected: Path) -> Built:
    """Take a replica through every command and stage, in the current folder."""
    with alone.settings(ROOT / "params.yaml") as settings:
        alone.hurry(settings, ITEMS, HURRIED)
        alone.remove(settings, name)
        settings["datasets"]["vad_mixtures"] = {"kind": "manifest", "path": str(detected)}
    command(["pin", name])
    command(["add", name, "--targets", ",".join(TARGETS[name])])
    with alone.settings() as settings:
        alone.leave_only(settings, name)
    command(["plan"])
    p = params.load()
    for stage, key in alone.steps(p, name):
        importlib.import_module(f"stages.{stage}").main([key] if key else [])
    recordings = manifest.read(layout.corpus(p.models[name].dataset), p.evaluate.split)
    family = models.load(p.models[name].family)
    return Built(name, family, folder, layout.checkpoint(name), recordings, alone.release(p))


# What a recording is heard as: by FunASR's AutoModel of the checkpoint, by its ONNX runtime of a release, and by Kiln

BY_AUTO_MODEL: dict[str, Callable[[Any, Recording], Any]] = {
    "paraformer_large": consumers.text,
    "bicif_paraformer_large": consumers.text,
    "paraformer_large_online": consumers.streamed_text,
    "seaco_paraformer_large": consumers.text,
    "sensevoice_small": consumers.tagged_text,
    "punc_ct_transformer": consumers.punctuated_text,
    "ct_punc": consumers.punctuated_text,
    "punc_ct_transformer_realtime": consumers.punctuated_pieces,
    "emotion2vec_plus_large": consumers.emotion,
    "campplus_zh_common": consumers.embedding,
    "fsmn_vad": consumers.segments,
}
TIMED = ("bicif_paraformer_large", "seaco_paraformer_large")
BY_RUNTIME: dict[str, Callable[[Path, Sequence[Recording]], list[Any]]] = {
    "paraformer_large": consumers.paraformer,
    "bicif_paraformer_large": consumers.paraformer,
    "paraformer_large_online": consumers.paraformer_online,
    "seaco_paraformer_large": consumers.seaco,
    "sensevoice_small": consumers.sense_voice,
    "punc_ct_transformer": consumers.punctuation,
    "ct_punc": consumers.punctuation,
    "punc_ct_transformer_realtime": consumers.punctuation_realtime,
    "emotion2vec_plus_large": consumers.emotions,
    "campplus_zh_common": consumers.embeddings,
    "fsmn_vad": consumers.fsmn_vad,
}


def test_the_export_says_what_funasr_says_of_the_checkpoint(built: Built):
    model = consumers.auto_model(built.folder)
    wanted = [BY_AUTO_MODEL[built.name](model, recording) for recording in built.recordings]
    outcomes = built.score(built.releases["cpu_fp32"], built.recordings)
    if built.name == "emotion2vec_plus_large":
        np.testing.assert_allclose([outcome.scores for outcome in outcomes], wanted, atol=1e-5)
    elif built.name == "campplus_zh_common":
        np.testing.assert_allclose([outcome.embedding for outcome in outcomes], wanted, rtol=1e-3, atol=1e-4)
    elif built.name == "fsmn_vad":
        assert [outcome.segments for outcome in outcomes] == wanted
    else:
        assert [outcome.text for outcome in outcomes] == wanted
    assert len({str(one) for one in wanted}) > 1
    if built.name in TIMED:
        known = [consumers.times(model, recording) for recording in built.recordings]
        # FunASR leaves out `<unk>` and the like among the words, and as many times at the end.
        times = [[pair for pair in outcome.times if pair] for outcome in outcomes]
        assert [found[: len(those)] for found, those in zip(times, known, strict=True)] == known
        assert all(known)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_release_says_in_funasr_s_runtime_what_was_measured(built: Built, precision: str):
    recordings = built.recordings
    target = TARGETS[built.name][precision == "int8"]
    if built.name == "paraformer_large_online":
        recordings = consumers.streamed_alike(recordings)
    folder = built.releases[target]
    found = BY_RUNTIME[built.name](folder, recordings)
    outcomes = built.score(folder, recordings)
    if built.name == "emotion2vec_plus_large":
        np.testing.assert_allclose(found, [outcome.scores for outcome in outcomes], atol=1e-5)
    elif built.name == "campplus_zh_common":
        np.testing.assert_allclose(found, [outcome.embedding for outcome in outcomes], rtol=1e-3, atol=1e-4)
    elif built.name == "fsmn_vad":
        assert found == [outcome.segments for outcome in outcomes]
    elif built.family is ct_transformer:  # of the text: FunASR's torch code writes ASCII marks after ASCII words
        marks = [read_marks(text)[1][: len(o.marks)] for text, o in zip(found, outcomes, strict=True)]
        assert marks == [outcome.marks for outcome in outcomes]
    elif built.name == "seaco_paraformer_large":  # its runtime has no way to be given no hotword
        if target == "cpu_fp32":
            check_hotwords(built, found)
    elif built.name == "sensevoice_small":
        assert found == [outcome.tokens for outcome in outcomes]
    elif built.name in {"paraformer_large", "bicif_paraformer_large"}:
        assert found == [without_last(built, outcome.tokens) for outcome in outcomes]
    else:
        assert found == [outcome.text for outcome in outcomes]
    assert len({str(one) for one in found}) > 1


def test_a_release_has_what_funasr_s_c_runtime_reads(built: Built):
    family = catalogue.models()[built.name].family
    kind = f"{family}_realtime" if built.name.endswith("_realtime") else family
    if built.name in {"campplus_zh_common", "emotion2vec_plus_large"}:
        assert family not in funasr_cpp.KEYS  # it has no class for them
        return
    for folder in built.releases.values():
        assert list(funasr_cpp.complaints(folder, kind)) == []


def without_last(built: Built, tokens: Sequence[int]) -> str:
    """The text of token ids without the last, which the offline runtime takes for the end: `predictor_bias` is 1."""
    known = read_json(built.folder / "tokens.json")
    kept = [known[token] for token in tokens if token not in {0, 2}][: len(tokens) - 1]
    return "".join(token for token in kept if not token.startswith("<"))


def check_hotwords(built: Built, found: Sequence[str]) -> None:
    """Texts of a release that is given hotwords are those of FunASR's AutoModel, which differ from those without.

    With `predictor_bias: 1` the runtime leaves out the last token, which may be one that is not shown.
    """
    model = consumers.auto_model(built.folder)
    wanted = [consumers.text_with_hotwords(model, recording) for recording in built.recordings]
    for said, text in zip(found, wanted, strict=True):
        assert said.split() in (text.split(), text.split()[:-1])
    assert wanted != [consumers.text(model, recording) for recording in built.recordings]


KNOWN = {  # weights of the state dict, and millions of parameters
    "paraformer_large": (956, 220),
    "bicif_paraformer_large": (968, 225),
    "paraformer_large_online": (956, 220),
    "seaco_paraformer_large": (1095, 247),
    "sensevoice_small": (917, 234),
    "punc_ct_transformer": (57, 73),
    "ct_punc": (161, 281),
    "punc_ct_transformer_realtime": (44, 72),
    "emotion2vec_plus_large": (329, 313),
    "campplus_zh_common": (937, 7),
    "fsmn_vad": (24, 0),
}


@pytest.mark.parametrize("name", list(catalogue.models()))
def test_a_full_size_replica_is_as_large_as_the_checkpoint(name: str):
    config = replicas.configuration(name, tiny=False) | {"vocab_size": replicas.REPLICAS[name].vocabulary[0]}
    family = models.load(catalogue.models()[name].family)
    model = checkpoint.weightless(family.build, config)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert (len(model.state_dict()), round(parameters / 1e6)) == KNOWN[name]
