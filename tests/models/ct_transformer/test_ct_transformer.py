"""Both kinds of CT-Transformer: what is refused, what FunASR makes of a swapped network, and what is measured."""

# ruff: noqa: RUF001  the marks are Chinese

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from sklearn.metrics import f1_score

from stages import prune
from stages.core.errors import UserError
from stages.core.parity import LoadedArtifact
from stages.core.statistics import drift, verdict
from stages.corpora import punctuated_text
from stages.corpora.manifest import Recording
from stages.evaluation.groups import group
from stages.models import ct_transformer
from stages.models.accuracy import MARKS
from stages.models.ct_transformer import METRICS, Outcome, measure, read_marks
from stages.models.shared import checkpoint as checkpoints
from stages.models.shared.checkpoint import torch_networks
from tests import workspace

TOKENS = [
    "<blank>",
    *sorted(set("我你他们去买看了吗吧，。？、学校公司苹果香蕉和因为所以今天昨天") - set("，。？、")),
    "tom",
    "<unk>",
]
ENCODER = {"input_size": 16, "output_size": 16, "attention_heads": 2, "linear_units": 64, "num_blocks": 2} | {
    "input_layer": "pe",
    "kernel_size": 11,
    "normalize_before": True,
}
PUNC_LIST = ["<unk>", "_", "，", "。", "？", "、"]
MODEL_CONF = {"embed_unit": 16, "att_unit": 16, "sentence_end_id": 3, "punc_list": PUNC_LIST}
CONFIGS: dict[str, dict[str, Any]] = {
    "offline": {"model": "CTTransformer", "encoder": "SANMEncoder", "encoder_conf": ENCODER},
    "realtime": {
        "model": "CTTransformerStreaming",
        "encoder": "SANMVadEncoder",
        "encoder_conf": ENCODER | {"sanm_shfit": 5},
    },
}


@pytest.fixture(params=CONFIGS)
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Random weights that say every mark now and then."""
    folder = tmp_path / request.param
    folder.mkdir()
    config = CONFIGS[request.param] | {"model_conf": MODEL_CONF}
    (folder / "config.yaml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    (folder / "tokens.json").write_text(json.dumps(TOKENS), encoding="utf-8")
    torch.manual_seed(0)
    model = ct_transformer.build(config | {"vocab_size": len(TOKENS)})
    model.decoder.bias.data[1] += 1.0
    torch.save(model.state_dict(), folder / "model.pt")
    return folder


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    texts = punctuated_text.paragraphs("tuning", 3, 4)
    return [Recording(folder=Path(), id=str(i), text=text) for i, text in enumerate(texts)]


def torch_artifact(checkpoint: Path) -> LoadedArtifact:
    model = ct_transformer.load(checkpoint)
    graph_set = ct_transformer.graph_set(model)
    return graph_set, torch_networks(graph_set, ct_transformer.export_modules(model))


def test_marks_are_read_as_funasr_splits_tokens():
    tokens, marks = read_marks("你好，tom jones。买2024个苹果、梨？")
    assert tokens == ["你", "好", "tom", "jones", "买", "2024", "个", "苹", "果", "梨"]
    assert marks == ["_", "，", "_", "。", "_", "_", "_", "_", "、", "？"]


def test_marks_count_in_both_widths_and_not_inside_numbers_and_names():
    half = read_marks("Hello, tom. It costs 3.14 or 1,000 at kiln.example, does it?")
    full = read_marks("Hello，tom。It costs 3.14 or 1,000 at kiln.example，does it？")
    assert half == full
    assert [mark for mark in half[1] if mark != "_"] == ["，", "。", "，", "？"]
    assert read_marks("你好｡")[1] == ["_", "。"]


def test_marks_that_the_metric_lacks_are_left_out_and_counted(tmp_path: Path):
    recording = Recording(folder=tmp_path, id="one", text="你好！他说：“不，谢谢”。")
    tokens, marks = read_marks(recording.text)
    assert tokens == list("你好他说不谢谢")
    assert marks == ["_", "_", "_", "_", "，", "_", "。"]
    outcome = Outcome(recording.text, marks)
    [counts] = measure(tmp_path, [recording], [outcome], [outcome])
    assert counts["other_marks"] == (4, 6)


def test_a_text_without_a_mark_that_the_metric_knows_is_no_perfect_score(tmp_path: Path):
    """0/0 was F1 1.0, so that an English data set passed every gate."""
    recordings = [Recording(folder=tmp_path, id=str(n), text="Stop! Go! Now!") for n in range(20)]
    outcomes = [Outcome("stop go now", ["_"] * 3) for _ in recordings]
    counts = measure(tmp_path, recordings, outcomes, outcomes)
    measured = drift(METRICS["f1"], "f1", counts, counts, group(recordings), resamples=100, confidence=0.95, seed=0)
    assert measured["value"] is None
    assert verdict(measured, 1.0) == "inconclusive"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"model": "Paraformer"}, "model: found 'Paraformer', wanted CTTransformer or", id="model"),
        pytest.param({"encoder": "ConformerEncoder"}, "encoder: found 'ConformerEncoder', wanted", id="encoder"),
        pytest.param(
            {"model_conf": {"punc_list": ["_", "，", "。"]}},
            "model_conf.punc_list: found .* wanted one with ？ 、, which FunASR",
            id="marks",
        ),
        pytest.param({"encoder_conf": None}, "no encoder_conf; the family ct_transformer needs it", id="section"),
    ],
)
def test_a_config_that_is_not_of_the_family_is_refused(checkpoint: Path, changes: dict[str, Any], message: str):
    config = yaml.safe_load((checkpoint / "config.yaml").read_text(encoding="utf-8"))
    (checkpoint / "config.yaml").write_text(yaml.safe_dump(config | changes), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        ct_transformer.load(checkpoint)


def test_a_token_list_of_another_length_is_refused(checkpoint: Path):
    (checkpoint / "tokens.json").write_text(json.dumps(TOKENS[1:]), encoding="utf-8")
    with pytest.raises(UserError, match=r"the weights do not fit config\.yaml"):
        ct_transformer.load(checkpoint)


def test_a_line_without_text_is_named(checkpoint: Path):
    with pytest.raises(UserError, match="silent has no text"):
        ct_transformer.score(
            checkpoint, torch_artifact(checkpoint), "text", [Recording(folder=Path(), id="silent", text="。")]
        )


def test_the_swapped_network_says_what_funasr_says(checkpoint: Path, recordings: list[Recording], monkeypatch):
    swapped = ct_transformer.score(checkpoint, torch_artifact(checkpoint), "text", recordings)
    own = ct_transformer.load(checkpoint)
    monkeypatch.setattr(ct_transformer.scoring, "_forward", lambda _: own.punc_forward)
    assert ct_transformer.score(checkpoint, torch_artifact(checkpoint), "text", recordings) == swapped
    assert len({mark for outcome in swapped for mark in outcome.marks}) > 2


def test_marks_are_those_of_the_text(checkpoint: Path, recordings: list[Recording]):
    withheld = int(checkpoint.name == "realtime")
    for recording, outcome in zip(
        recordings, ct_transformer.score(checkpoint, torch_artifact(checkpoint), "text", recordings), strict=True
    ):
        tokens, _ = read_marks(recording.text)
        assert len(outcome.marks) == len(tokens) - withheld
        if withheld:
            assert read_marks(outcome.text, PUNC_LIST) == (tokens, [*outcome.marks, "_"])


@pytest.mark.parametrize(
    ("tokens", "text", "marks"),
    [
        pytest.param(["it", "’", "s", "ok", "我"], "it’，s。 ok我", ["_", "，", "。", "_"], id="apostrophe"),
        pytest.param(["http", "x.com", "b=1"], "http、 x.com b=1", ["、", "_"], id="marks-inside-a-word"),
        pytest.param(["<unk>", "去", "了"], "<unk><unk>去？了", ["<unk>", "？"], id="unknown"),
    ],
)
def test_each_mark_of_the_realtime_kind_belongs_to_the_token_before_it(tokens: list[str], text: str, marks: list[str]):
    assert ct_transformer.scoring.marks_between(tokens, text, set(PUNC_LIST) - {"_"}) == marks


@pytest.mark.parametrize("text", ["我。", "tom。", "我去。"])
def test_the_shortest_texts(checkpoint: Path, text: str):
    line = Recording(folder=Path(), id="short", text=text)
    outcome = ct_transformer.score(checkpoint, torch_artifact(checkpoint), "text", [line])[0]
    assert outcome.text.lower().startswith(text[:-1]) or checkpoint.name == "offline"


def test_funasr_onnx_feeds_what_the_graph_declares_and_says_the_same(
    checkpoint: Path, recordings: list[Recording], monkeypatch: pytest.MonkeyPatch
):
    from funasr_onnx import punc_bin

    graph_set, networks = torch_artifact(checkpoint)
    graph = graph_set.graphs["model"]

    def session(*_: Any, **__: Any) -> Callable[[list[np.ndarray]], list[np.ndarray]]:
        def run(arrays: list[np.ndarray]) -> list[np.ndarray]:
            assert [a.dtype.name for a in arrays] == [t.dtype for t in graph.inputs.values()]
            assert [a.ndim for a in arrays] == [len(t.shape) for t in graph.inputs.values()]
            return list(networks["model"](dict(zip(graph.inputs, arrays, strict=True))).values())

        return run

    monkeypatch.setattr(punc_bin, "OrtInferSession", session)
    (checkpoint / "model.onnx").touch()
    ours = ct_transformer.score(checkpoint, (graph_set, networks), "text", recordings)
    theirs = [funasr_onnx_marks(checkpoint, read_marks(recording.text)[0]) for recording in recordings]
    assert theirs == [outcome.marks for outcome in ours]


def funasr_onnx_marks(folder: Path, tokens: list[str]) -> list[str]:
    from funasr_onnx.punc_bin import CT_Transformer, CT_Transformer_VadRealtime

    if folder.name == "offline":
        offline = CT_Transformer(folder)
        return [offline.punc_list[i] for i in offline(" ".join(tokens))[1]]
    realtime, step = CT_Transformer_VadRealtime(folder), ct_transformer.scoring.PIECE
    state: dict[str, list[str]] = {"cache": []}
    texts = [realtime(" ".join(tokens[i : i + step]), state)[0] for i in range(0, len(tokens), step)]
    return read_marks("".join(texts), PUNC_LIST)[1][:-1]


def test_only_the_last_block_of_the_realtime_kind_looks_ahead():
    model = ct_transformer.build(CONFIGS["realtime"] | {"model_conf": MODEL_CONF, "vocab_size": len(TOKENS)})
    module = ct_transformer.export_modules(model)["model"]
    ids = torch.randint(0, len(TOKENS), (1, 12), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    changed = ids.clone()
    changed[0, -1] = (ids[0, -1] + 1) % len(TOKENS)
    everywhere = torch.ones(1, 1, 12, 12)
    causal = everywhere.tril()

    def logits(inputs: torch.Tensor, seen: torch.Tensor, passed: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return module(inputs, torch.tensor([12], dtype=torch.int32), seen, passed)[0]

    torch.testing.assert_close(logits(ids, everywhere, everywhere), logits(ids, everywhere, causal))
    torch.testing.assert_close(logits(ids, causal, everywhere)[:, :-1], logits(changed, causal, everywhere)[:, :-1])
    assert not torch.allclose(logits(ids, everywhere, causal)[:, 0], logits(changed, everywhere, causal)[:, 0])


def counts(text: str, said: str, reference: str) -> dict[str, Any]:
    line = Recording(folder=Path(), id="a", text=text)
    outcome, baseline = (Outcome("", list(marks)) for marks in (said, reference))
    return dict(measure(Path(), [line], [baseline], [outcome])[0])


def test_a_mark_for_another_is_an_alarm_and_a_miss():
    found = counts("我，你。他？", said="。。？", reference="，。？")
    assert found["f1"] == (4, 6)  # two found of three, with one false alarm and one miss
    assert (found["f1_comma"], found["f1_period"], found["f1_question"]) == ((0, 1), (2, 3), (2, 2))
    assert found["f1_enumeration"] == (0, 0)
    assert found["mark_agreement"] == (2, 3)


def test_agreement_counts_only_where_either_has_a_mark():
    assert counts("我我我我", said="__，_", reference="_、，_")["mark_agreement"] == (1, 2)


def test_what_the_realtime_kind_withholds_is_not_counted():
    assert counts("我，你。", said="，", reference="，")["f1"] == (2, 2)


def test_outcomes_are_kept(tmp_path: Path):
    outcomes = [Outcome("我，你。", ["，", "。"]), Outcome("tom", [])]
    ct_transformer.write_outcomes(tmp_path, "text", outcomes)
    assert ct_transformer.read_outcomes(tmp_path, "text") == outcomes


UNITS, HEADS = "encoder_conf.linear_units", "encoder_conf.kept_heads"
SETTINGS = workspace.PRUNE.model_copy(
    update={"round_to": 8, "refit_damping": 1e-5, "distill_steps": 0, "learning_rate": 1e-3, "seed": 0}
)


def parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_the_width_gives_the_ratio_asked_for(checkpoint: Path):
    config = ct_transformer.read_config(checkpoint)
    small = ct_transformer.build(ct_transformer.narrowed(config, 0.3, {UNITS: 1}))
    dense = ct_transformer.load(checkpoint)
    assert parameters(small) / parameters(dense) == pytest.approx(0.7, abs=0.01)
    assert ct_transformer.widths(dense) == {UNITS: 64, HEADS: 2}
    units = ct_transformer.widths(small)[UNITS]
    saved = 20 * 2 * 2 * 16 * (64 - units)  # tokens, blocks, layers, channels
    assert ct_transformer.multiplications(dense) - ct_transformer.multiplications(small) == saved


@pytest.fixture
def large_vocabulary() -> dict[str, Any]:
    """The configuration of FunASR's large model, of no weights: 70 of 73 M parameters are its embedding."""
    hub = ENCODER | {"input_size": 256, "output_size": 256, "linear_units": 1024, "num_blocks": 4}
    config = CONFIGS["offline"] | {"encoder_conf": hub, "vocab_size": 272_727}
    return config | {"model_conf": MODEL_CONF | {"embed_unit": 256, "att_unit": 256}}


def goal(config: dict[str, Any], **changes: object) -> prune.Goal:
    dense = checkpoints.weightless(ct_transformer.build, config)
    return prune.goal(ct_transformer, dense, config, SETTINGS.model_copy(update={"round_to": 8, **changes}))


def test_more_than_the_feed_forward_layers_hold_is_refused_with_what_they_do(large_vocabulary: dict[str, Any]):
    hold = r"encoder_conf\.linear_units hold 2\.9% of 7\d,\d{3},\d{3} parameters, of which 99\.2% can go"
    wanted = r"found ratio: 0\.3 of all, wanted at most 0\.028 of all or 0\.992 of prunable; heads: true adds heads"
    with pytest.raises(UserError, match=f"{hold}; {wanted}"):
        goal(large_vocabulary, ratio=0.3)
    with pytest.raises(UserError, match=r"kept_heads hold 4\.0%.* 0\.034 of all or 0\.862 of prunable; see"):
        goal(large_vocabulary, ratio=0.3, heads=True, round_to=1)


def test_a_ratio_of_what_can_be_cut_is_small_beside_a_large_vocabulary(large_vocabulary: dict[str, Any]):
    wanted = goal(large_vocabulary, ratio=0.3, ratio_of="prunable")
    small = ct_transformer.narrowed(large_vocabulary, wanted.removed, wanted.steps)
    sizes = [
        sum(p.numel() for p in checkpoints.weightless(ct_transformer.build, config).parameters())
        for config in (large_vocabulary, small)
    ]
    assert (sizes[0] - sizes[1]) / wanted.prunable == pytest.approx(0.3, abs=prune.TOLERANCE)
    assert 1 - sizes[1] / sizes[0] == pytest.approx(wanted.removed, abs=wanted.tolerance)
    assert wanted.removed < 0.02


@pytest.mark.parametrize("criterion", ["magnitude", "activation", "taylor", "least_squares"])
def test_channels_that_are_never_active_go_first(checkpoint: Path, recordings: list[Recording], criterion: str):
    model, config = ct_transformer.load(checkpoint), ct_transformer.read_config(checkpoint)
    for feed_forward in [layer.feed_forward for layer in (*model.encoder.encoders0, *model.encoder.encoders)]:
        for weight in (feed_forward.w_1.weight[::2], feed_forward.w_1.bias[::2]):
            weight.data.zero_()
        feed_forward.w_2.weight.data[:, ::2] = 0
    stream = ct_transformer.calibration(checkpoint, recordings, SETTINGS)
    half = config | {"encoder_conf": config["encoder_conf"] | {"linear_units": 32}}
    small, refit = ct_transformer.cut(model, half, stream, criterion, 1e-9)
    assert list(refit()) == ["encoder.encoders0.0.feed_forward", "encoder.encoders.0.feed_forward"]
    windows, pauses = stream[None, :40], torch.tensor([7])
    torch.testing.assert_close(
        ct_transformer.pruning.logits(small, windows, pauses),
        ct_transformer.pruning.logits(model, windows, pauses),
        atol=1e-3,
        rtol=0,
    )


def test_heads_that_nobody_reads_go_first(checkpoint: Path, recordings: list[Recording]):
    model, config = ct_transformer.load(checkpoint), ct_transformer.read_config(checkpoint)
    for layer in (*model.encoder.encoders0, *model.encoder.encoders):
        layer.self_attn.linear_out.weight.data[:, :8] = 0
    stream = ct_transformer.calibration(checkpoint, recordings, SETTINGS)
    small, refit = ct_transformer.cut(model, ct_transformer.with_widths(config, {HEADS: 1}), stream, "activation", 1e-9)
    assert list(refit()) == ["encoder.encoders0.0.self_attn", "encoder.encoders.0.self_attn"]
    windows, pauses = stream[: 2 * 40].reshape(2, 40), torch.tensor([7, 0])
    wanted, _ = model.punc_forward(windows, torch.tensor([40, 40]), vad_indexes=pauses)  # FunASR's own
    torch.testing.assert_close(ct_transformer.pruning.logits(small, windows, pauses), wanted, atol=1e-3, rtol=0)


def test_distillation_is_of_the_teachers_marks(checkpoint: Path, recordings: list[Recording]):
    model, config = ct_transformer.load(checkpoint), ct_transformer.read_config(checkpoint)
    stream = ct_transformer.calibration(checkpoint, recordings, SETTINGS)
    small, _ = ct_transformer.cut(model, ct_transformer.narrowed(config, 0.3, {UNITS: 8}), stream, "magnitude", 1e-5)

    def loss(student: torch.nn.Module) -> float:
        step = ct_transformer.distillation(student, model, stream)
        return float(step(torch.Generator().manual_seed(1)).detach())

    assert loss(model) == pytest.approx(0, abs=1e-6)
    assert loss(small) == loss(small) > 1e-6


def test_calibration_repeats_sentences_in_other_orders(checkpoint: Path, recordings: list[Recording]):
    once, twice = (
        ct_transformer.calibration(checkpoint, recordings, SETTINGS.model_copy(update={"variations": n}))
        for n in (0, 1)
    )
    assert torch.equal(once, twice[: len(once)])
    assert not torch.equal(once, twice[len(once) :])
    assert torch.equal(once.sort().values, twice[len(once) :].sort().values)


def test_too_little_calibration_text_is_refused(checkpoint: Path):
    with pytest.raises(UserError, match="found 2 tokens of calibration text, wanted at least 48"):
        ct_transformer.calibration(
            checkpoint, [Recording(folder=Path(), id="a", text="我去。")], SETTINGS.model_copy(update={"variations": 0})
        )


def test_f1_is_scikit_learn_s():
    rng = np.random.default_rng(0)
    marks = ["_", *MARKS.values()]
    expected, said = rng.choice(marks, (2, 200))
    text = "".join(f"字{mark if mark != '_' else ''}" for mark in expected)
    found = counts(text, "".join(said), "".join(said))
    wanted = f1_score(expected, said, labels=marks[1:], average="micro")
    assert found["f1"][0] / found["f1"][1] == pytest.approx(wanted)
    for name, mark in MARKS.items():
        top, bottom = found[f"f1_{name}"]
        assert top / bottom == pytest.approx(f1_score(expected, said, labels=[mark], average="micro"))
