"""The graph says what FunASR's own torch network says, in either way of writing; tags and figures are scored."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest
import torch
import yaml

from stages import prune
from stages.core import graphs
from stages.core.errors import UserError
from stages.core.statistics import Counts
from stages.corpora.manifest import Recording
from stages.export import export_variant
from stages.models import sensevoice
from stages.models.paraformer.network import load_frontend
from stages.models.paraformer.scoring import recognize
from stages.models.sensevoice.metrics import parse
from stages.models.sensevoice.network import QUERIES
from stages.models.shared import checkpoint, pieces
from stages.pruning import recovery
from stages.rewrites import attention
from stages.runtimes import onnxruntime
from tests import workspace
from tests.models.paraformers import CONFIG as PARAFORMER
from tests.models.paraformers import TOLERANCE, bursts, features
from tests.workspace import ROOT
from zoo import replicas

PRUNE = workspace.PRUNE.model_copy(update={"ratio": 0.04})
TOKENS = ["<unk>", "<s>", "</s>", *replicas.TAGS, *"一二三123"]
CONTROL = (1, 2)  # of which SentencePiece makes no text
CONFIG: dict[str, Any] = {
    "model": "SenseVoiceSmall",
    "model_conf": {"length_normalized_loss": True, "sos": 1, "eos": 2, "ignore_id": -1},
    "encoder": "SenseVoiceEncoderSmall",
    "encoder_conf": PARAFORMER["encoder_conf"] | {"tp_blocks": 1},
    "frontend_conf": PARAFORMER["frontend_conf"],
    "tokenizer": "SentencepiecesTokenizer",
    "dataset_conf": {"sos": "${model_conf.sos}"},
}
MINIATURE = ROOT / "zoo/sensevoice"
HEADS = "encoder_conf.kept_heads"


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The tensors are tiny: threads would wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(recovery, "REFIT_THREADS", 1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as the hub has it, without tokens.json, with a random network that says many tokens."""
    folder = tmp_path_factory.mktemp("plain")
    torch.manual_seed(1)
    model = sensevoice.build(CONFIG | {"vocab_size": len(TOKENS)})
    torch.save(model.state_dict(), folder / "model.pt")
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (folder / pieces.FILE).write_bytes(replicas.sentencepiece_model(TOKENS))
    (folder / "am.mvn").write_bytes(replicas.cmvn(560))
    return folder


@pytest.fixture(scope="module")
def exported(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    export_variant(sensevoice, plain, folder, opset=18, tolerance=TOLERANCE)
    return folder


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Recording]:
    return bursts(tmp_path_factory.mktemp("corpus"))


def run_funasr(model: Any, speech: torch.Tensor, lengths: torch.Tensor, textnorm: torch.Tensor) -> torch.Tensor:
    """FunASR's own export of the network, for audio whose language is not told."""
    from funasr.models.sense_voice.export_meta import export_forward

    logits, found = export_forward(model, speech.clone(), lengths, torch.zeros_like(textnorm), textnorm)
    assert found.tolist() == (lengths + QUERIES).tolist()
    return logits


@pytest.mark.parametrize("lengths", [[1], [7], [167], [700], [90, 60, 5]])
def test_the_network_is_funasr_s_own(plain: Path, lengths: list[int]):
    model = sensevoice.load(plain)
    speech, speech_lengths = features(lengths)
    textnorm = torch.tensor([14, 15, 14][: len(lengths)])
    with torch.no_grad():
        found, positions = sensevoice.network.Recognizer(model)(
            speech, speech_lengths, torch.zeros_like(textnorm), textnorm
        )
        wanted = run_funasr(model, speech, speech_lengths, textnorm)
    assert positions.tolist() == [length + QUERIES for length in lengths]
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


def test_the_graph_hears_a_padded_recording_as_it_hears_it_alone(exported: Path):
    run = onnxruntime.network(exported / "model.onnx", graphs.read(exported).graphs["model"])
    speech, _ = features([120, 50])
    speech[1, 50:] = 9.0
    both = np.array([0, 0], np.int32), np.array([14, 15], np.int32)
    asked = dict(zip(("language", "textnorm"), both, strict=True))
    together = run({"speech": speech.numpy(), "speech_lengths": np.array([120, 50], np.int32)} | asked)
    assert together["encoder_out_lens"].tolist() == [124, 54]
    for row, length in enumerate((120, 50)):
        one = {name: values[row : row + 1] for name, values in asked.items()}
        lengths = np.array([length], np.int32)
        alone = run({"speech": speech[row : row + 1, :length].numpy(), "speech_lengths": lengths} | one)
        np.testing.assert_allclose(together["ctc_logits"][row, : length + 4], alone["ctc_logits"][0], atol=1e-4)


def test_a_score_is_funasr_s_text_with_the_network_swapped(plain: Path, exported: Path, recordings: list[Recording]):
    config = sensevoice.read_config(plain)
    tools = {"tokenizer": pieces.load(plain), "frontend": load_frontend(plain, config), "language": "auto"}
    artifact = graphs.read(exported), onnxruntime.load(exported, graphs.read(exported))
    found = {}
    for mode in sensevoice.MODES:
        model = sensevoice.load(plain)
        texts = [recognize(model, recording.samples(), text_norm=mode, **tools) for recording in recordings]
        outcomes = found[mode] = sensevoice.score(plain, artifact, mode, recordings)
        assert outcomes == [parse(o.tokens, text, mode) for o, text in zip(outcomes, texts, strict=True)]
        shown = ["".join(TOKENS[token] for token in o.tokens if token not in CONTROL) for o in outcomes]
        assert shown == texts
    assert len(set(texts)) > 1
    assert [o.tokens for o in found["woitn"]] != [o.tokens for o in found["withitn"]]
    recognizer = sensevoice.load_recognizer(plain, artifact)
    assert recognizer(recordings[1].samples()) == found["woitn"][1]


def test_a_search_chooses_the_text_and_leaves_the_tags(plain: Path, exported: Path, recordings: list[Recording]):
    graph_set = graphs.read(exported)
    artifact = graph_set, onnxruntime.load(exported, graph_set)
    asked = list[np.ndarray]()

    def search(log_probabilities: np.ndarray) -> np.ndarray:
        asked.append(log_probabilities)
        return np.array([5, 5, 0, *[TOKENS.index("三")] * (len(log_probabilities) - 3)])

    samples = recordings[1].samples()
    greedy, found = (sensevoice.load_recognizer(plain, artifact, s)(samples) for s in (None, search))
    [log_probabilities] = asked
    np.testing.assert_allclose(np.exp(log_probabilities).sum(axis=1), 1, rtol=1e-4)
    assert log_probabilities.shape[1] == len(TOKENS)
    tags = len(greedy.tokens) - len(collapse(log_probabilities.argmax(axis=1)))
    assert found.tokens == [*greedy.tokens[:tags], 5, TOKENS.index("三")]
    assert found.text.endswith("三")


def collapse(tokens: np.ndarray) -> list[int]:
    """As CTC does: repeats, then blanks."""
    return [int(t) for t in torch.unique_consecutive(torch.from_numpy(tokens)) if t]


def test_tags_and_control_symbols_are_no_text(plain: Path):
    vocabulary = sensevoice.vocabulary(plain)
    shown = [s for s in vocabulary.spellings if s]
    assert shown == list("一二三123")
    assert (len(vocabulary.spellings), vocabulary.blank) == (len(TOKENS), 0)


def test_there_is_no_other_mode(plain: Path):
    with pytest.raises(ValueError, match="found mode 'offline'"):
        sensevoice.score(plain, (graphs.GraphSet(graphs={}, cases={}), {}), "offline", [])


@pytest.mark.parametrize("samples", [0, 1, 399])
def test_audio_of_less_than_a_window_has_no_text(plain: Path, exported: Path, samples: int):
    graph_set = graphs.read(exported)
    transcribe = sensevoice.load_recognizer(plain, (graph_set, onnxruntime.load(exported, graph_set)))
    assert transcribe(np.full(samples, 0.1, np.float32)) == parse([], "", "woitn")


# Metrics


def measured(recording: Recording, text: str, textnorm: str = "woitn") -> Counts:
    reference = parse([1], "<|zh|><|SAD|><|BGM|><|woitn|>二十", textnorm)
    return sensevoice.measure(MINIATURE, [recording], [reference], [parse([1], text, textnorm)])[0]


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    known = {"text": "二十", "written": "20", "language": "zh", "label": "sad", "event": "Speech"}
    return Recording(id="a", folder=tmp_path, **known)


def test_tags_are_scored_against_the_truth_and_the_baseline(recording: Recording):
    counts = measured(recording, "<|zh|><|HAPPY|><|Speech|><|woitn|>二十")
    assert counts["cer"] == (0, 2)
    right = {name: counts[f"{name}_accuracy"] for name in ("language", "emotion", "event")}
    assert right == {"language": (1, 1), "emotion": (0, 1), "event": (1, 1)}
    alike = {name: counts[f"{name}_agreement"] for name in ("language", "emotion", "event")}
    assert alike == {"language": (1, 1), "emotion": (0, 1), "event": (0, 1)}


def test_a_text_with_figures_is_scored_against_what_is_written(recording: Recording):
    assert measured(recording, "<|zh|><|SAD|><|BGM|><|withitn|>20", "withitn")["cer"] == (0, 2)
    assert measured(recording, "<|zh|><|SAD|><|BGM|><|withitn|>二十", "withitn")["cer"] == (2, 2)
    unwritten = recording.model_copy(update={"written": ""})
    assert measured(unwritten, "<|zh|><|SAD|><|BGM|><|withitn|>二十", "withitn")["cer"] == (0, 2)


def test_tags_that_are_missing_are_wrong_and_truths_that_are_missing_do_not_count(recording: Recording):
    assert measured(recording, "二十")["event_accuracy"] == (0, 1)
    unknown = recording.model_copy(update={"event": ""})
    assert measured(unknown, "<|zh|><|SAD|><|BGM|><|woitn|>二十")["event_accuracy"] == (0, 0)


@pytest.mark.parametrize(
    ("field", "truth", "message"),
    [
        ("language", "english", r"a: found language 'english', wanted a tag of the model's; known: .*zh"),
        ("label", "hapy", r"found label 'hapy', .* did you mean 'happy'"),
        ("event", "../a", r"found event '\.\./a'"),
    ],
)
def test_a_truth_that_the_model_has_no_tag_for_is_named(recording: Recording, field: str, truth: str, message: str):
    with pytest.raises(UserError, match=message):
        measured(recording.model_copy(update={field: truth}), "<|zh|><|SAD|><|Speech|><|woitn|>二十")


def test_outcomes_are_read_as_they_were_written(tmp_path: Path):
    outcomes = [parse([3, 9], "<|en|><|SAD|><|Speech|><|woitn|>go to floor two", "woitn"), parse([], "", "woitn")]
    sensevoice.write_outcomes(tmp_path, "woitn", outcomes)
    assert sensevoice.read_outcomes(tmp_path, "woitn") == outcomes


# Checkpoints


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"model": "SenseVoice"}, "model: found 'SenseVoice', wanted SenseVoiceSmall", id="model"),
        pytest.param({"encoder": "SANMEncoder"}, "found 'SANMEncoder', wanted 'SenseVoiceEncoderSmall'", id="encoder"),
        pytest.param(
            {"encoder_conf": CONFIG["encoder_conf"] | {"tp_blocks": "many"}},
            "encoder_conf.tp_blocks: found 'many', wanted a valid integer",
            id="blocks",
        ),
        pytest.param({"model_conf": {"blank_id": 3}}, "model_conf.blank_id: found 3, wanted 0", id="blank"),
        pytest.param(
            {"model_conf": {"sos": "${model_conf.eos}"}}, r"sos: found '\$\{model_conf.eos\}', wanted", id="reference"
        ),
        pytest.param({"ctc_conf": {"extra_linear": False}}, "ctc_conf.extra_linear: found False", id="ctc"),
        pytest.param(
            {"vocab_size": len(TOKENS) - 1}, rf"bpe.model: found {len(TOKENS)} pieces, the vocab_size", id="vocabulary"
        ),
        pytest.param({"frontend_conf": None}, "no frontend_conf; the family sensevoice needs it", id="missing"),
    ],
)
def test_another_network_is_refused(plain: Path, tmp_path: Path, changes: dict[str, Any], message: str):
    folder = Path(shutil.copytree(plain, tmp_path / "checkpoint"))
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG | changes))
    with pytest.raises(UserError, match=message):
        sensevoice.load(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        pytest.param(pieces.FILE, None, f"found no {pieces.FILE}; add the checkpoint's own", id="missing"),
        pytest.param(pieces.FILE, b"", "is empty", id="empty"),
        pytest.param(pieces.FILE, b"not a model at all", "is not a SentencePiece model", id="other"),
        pytest.param(pieces.FILE, b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer", id="lfs"),
        pytest.param("tokens.json", b'["<unk>", "a"]', "tokens.json differs from .* at token 1", id="tokens"),
    ],
)
def test_pieces_that_are_not_the_network_s_are_refused(
    plain: Path, tmp_path: Path, name: str, content: bytes | None, message: str
):
    folder = Path(shutil.copytree(plain, tmp_path / "checkpoint"))
    (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        sensevoice.load(folder)


# Pruning


def test_a_pruned_model_is_smaller_and_repeats(plain: Path, recordings: list[Recording]):
    model, config = sensevoice.load(plain), sensevoice.read_config(plain)
    calibration = sensevoice.calibration(plain, recordings[1:], PRUNE)
    split = (calibration, calibration, PRUNE)
    first, small_config, record = prune.prune(sensevoice, model, config, *split, accuracy=lambda _: 0.0)
    second, _, _ = prune.prune(sensevoice, model, config, *split, accuracy=lambda _: 0.0)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert record["removed"] == pytest.approx(0.04, abs=0.005)
    assert record["pruned"]["macs"] < record["dense"]["macs"]
    assert record["pruned"]["widths"] == sensevoice.widths(sensevoice.build(small_config))
    layers = {name.rsplit(".", 1)[0] for name in record["layer_error"]}
    assert layers == {"encoder.encoders0.0", "encoder.encoders.0", "encoder.tp_encoders.0"}


def test_funasr_does_not_take_fewer_heads_for_all(plain: Path):
    from funasr.models.sense_voice.model import SenseVoiceSmall

    config = sensevoice.with_widths(sensevoice.read_config(plain), {HEADS: 1})
    parts = {key: config[key] for key in ("encoder", "encoder_conf", "ctc_conf", "vocab_size")}
    with pytest.raises(TypeError, match="kept_heads"):
        SenseVoiceSmall(**parts, input_size=560)


def test_fewer_heads_are_exported_and_fused_like_all(
    plain: Path, exported: Path, recordings: list[Recording], tmp_path: Path
):
    model, config = sensevoice.load(plain), sensevoice.read_config(plain)
    config = sensevoice.with_widths(config, {HEADS: 1})
    small, refit = sensevoice.cut(
        model, config, sensevoice.calibration(plain, recordings[1:], PRUNE), "least_squares", 1e-4
    )
    assert set(refit()) == {f"encoder.{name}.0.self_attn" for name in ("encoders0", "encoders", "tp_encoders")}
    checkpoint.save(small, config, plain, tmp_path / "small")
    export_variant(sensevoice, tmp_path / "small", tmp_path, opset=18, tolerance=TOLERANCE)
    fused = [attention.rewrite(onnx_ir.load(folder / "model.onnx"))[1] for folder in (exported, tmp_path)]
    assert fused[0] == fused[1] == 3
