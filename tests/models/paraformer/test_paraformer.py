"""The graphs say what FunASR's own torch network says: of padded batches, of silence."""

from __future__ import annotations

import shutil
import warnings
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
from stages.core.params.recipes import BFloat16Recipe, Float16Recipe
from stages.corpora.manifest import Recording
from stages.export import export_variant
from stages.models import paraformer
from stages.models.shared import asr, checkpoint
from stages.models.shared.checkpoint import torch_networks
from stages.pruning import recovery
from stages.quantize import quantize
from stages.rewrites import attention
from stages.runtimes import onnxruntime
from tests import workspace
from tests.models.paraformers import CONFIG, TOKENS, TOLERANCE, bursts, features, make
from tests.quantization import emulation

PRUNE = workspace.PRUNE.model_copy(update={"ratio": 0.1})


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
    return make(tmp_path_factory.mktemp("plain") / "checkpoint", paraformer, CONFIG)


@pytest.fixture(scope="module")
def exported(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    export_variant(paraformer, plain, folder, opset=18, tolerance=TOLERANCE)
    return folder


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Recording]:
    return bursts(tmp_path_factory.mktemp("corpus"))


@pytest.mark.parametrize("lengths", [[1], [7], [167], [700], [90, 60, 5]])
def test_the_network_says_of_each_row_what_funasr_s_own_says_of_it_alone(plain: Path, lengths: list[int]):
    """FunASR's own lets padding into the last token of a row of a batch; one recording at a time is what it serves."""
    model = paraformer.load(plain)
    speech, speech_lengths = features(lengths)
    with torch.no_grad():
        logits, token_num = paraformer.network.Recognizer(model)(speech, speech_lengths)
        for row, length in enumerate(lengths):
            alone = speech[row : row + 1, :length], speech_lengths[row : row + 1]
            encoded, _ = model.encode(*alone)
            embeds, wanted_num, _, _ = model.calc_predictor(encoded, alone[1])
            assert token_num[row] == wanted_num.item()
            if wanted_num.item() > 0:
                wanted, _ = model.cal_decoder_with_predictor(encoded, alone[1], embeds, wanted_num.long())
                torch.testing.assert_close(logits[row, : wanted.shape[1]], wanted[0], atol=1e-4, rtol=0)


def test_silence_has_no_token_and_a_graph_that_runs(plain: Path, exported: Path):
    graph_set = graphs.read(exported)
    run = onnxruntime.network(exported / "model.onnx", graph_set.graphs["model"])
    outputs = run({"speech": np.full((2, 2, 560), -9, np.float32), "speech_lengths": np.array([2, 1], np.int32)})
    assert outputs["token_num"].tolist() == [0, 0]
    assert outputs["logits"].shape == (2, 1, len(TOKENS))
    assert np.isfinite(outputs["logits"]).all()
    assert paraformer.load(plain).vocab_size == len(TOKENS)


def test_the_graph_hears_a_padded_recording_as_it_hears_it_alone(exported: Path):
    run = onnxruntime.network(exported / "model.onnx", graphs.read(exported).graphs["model"])
    speech, _ = features([120, 50])
    together = run({"speech": speech.numpy(), "speech_lengths": np.array([120, 50], np.int32)})
    for row, length in enumerate([120, 50]):
        lengths = np.array([length], np.int32)
        alone = run({"speech": speech[row : row + 1, :length].numpy(), "speech_lengths": lengths})
        count = int(alone["token_num"][0])
        assert together["token_num"][row] == count > 3
        np.testing.assert_allclose(together["logits"][row, :count], alone["logits"][0], atol=1e-4)


@pytest.mark.parametrize(
    ("recipe", "wrong"),
    [
        pytest.param(Float16Recipe(kind="float16"), 0, id="fp16"),  # one of ten where it counts in fp16
        pytest.param(BFloat16Recipe(kind="bfloat16"), 0.05, id="bf16"),  # six of ten
    ],
)
def test_half_precision_hears_the_tokens_of_a_minute(
    exported: Path, tmp_path: Path, recipe: Float16Recipe | BFloat16Recipe, wrong: float
):
    speech, lengths = features([967])
    feeds = {"speech": speech.numpy(), "speech_lengths": lengths.numpy()}
    logits, token_num = onnxruntime.session(exported / "model.onnx").run(None, feeds)
    quantize(exported / "model.onnx", tmp_path / "half.onnx", recipe, [feeds])
    found, found_num = emulation.run(tmp_path / "half.onnx", feeds)
    assert found_num.tolist() == token_num.tolist()
    assert token_num[0] > 150
    assert np.mean(found.argmax(-1) != logits.argmax(-1)) <= wrong


def test_a_score_is_funasr_s_text_with_the_network_swapped(plain: Path, exported: Path, recordings: list[Recording]):
    model, config = paraformer.load(plain), paraformer.read_config(plain)
    tools = {
        "tokenizer": asr.load_tokenizer(plain, config),
        "frontend": paraformer.network.load_frontend(plain, config),
    }
    texts = [paraformer.scoring.recognize(model, recording.samples(), **tools) for recording in recordings]
    assert len(texts[1]) > 5
    graph_set = paraformer.graph_set(model)
    for networks in (
        torch_networks(graph_set, paraformer.export_modules(paraformer.load(plain))),
        {"model": onnxruntime.network(exported / "model.onnx", graph_set.graphs["model"])},
    ):
        outcomes = paraformer.score(plain, (graph_set, networks), "offline", recordings)
        assert [outcome.text for outcome in outcomes] == texts
    counts = paraformer.measure(plain, recordings, outcomes, outcomes)
    assert all(c["cer_relative"][0] == 0 and c["token_agreement"][0] == c["token_agreement"][1] for c in counts)


def test_funasr_s_runtime_gives_the_same_text(plain: Path, exported: Path, recordings: list[Recording], tmp_path: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from funasr_onnx import Paraformer
    folder = Path(shutil.copytree(plain, tmp_path / "release"))
    shutil.copyfile(exported / "model.onnx", folder / "model.onnx")
    runtime = Paraformer(str(folder), intra_op_num_threads=1)
    graph_set = graphs.read(exported)
    networks = {"model": onnxruntime.network(exported / "model.onnx", graph_set.graphs["model"])}
    outcomes = paraformer.score(plain, (graph_set, networks), "offline", recordings)
    assert [runtime(recording.samples())[0]["preds"][0] for recording in recordings] == [o.text for o in outcomes]


def test_there_is_no_streaming_mode(plain: Path):
    with pytest.raises(ValueError, match="found mode 'streaming'"):
        paraformer.score(plain, (graphs.GraphSet(graphs={}, cases={}), {}), "streaming", [])


# Checkpoints


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        pytest.param(
            "model", "BAT", "model: found 'BAT', wanted Paraformer or BiCifParaformer, which the family", id="model"
        ),
        pytest.param(
            "predictor", "CifPredictor", "predictor: found 'CifPredictor', wanted 'CifPredictorV2'", id="predictor"
        ),
        pytest.param(
            "predictor_conf",
            {"tail_threshold": 0.0},
            "predictor_conf.tail_threshold: found 0.0, wanted greater than 0",
            id="tail",
        ),
        pytest.param(
            "encoder_conf",
            {"input_layer": "conv2d"},
            "encoder_conf.input_layer: found 'conv2d', wanted 'pe'",
            id="option",
        ),
        pytest.param("normalize", "UtteranceMVN", "normalize: found 'UtteranceMVN', wanted None", id="normalize"),
        pytest.param("frontend_conf", None, "no frontend_conf; the family paraformer needs it", id="missing"),
    ],
)
def test_another_network_is_refused(plain: Path, tmp_path: Path, section: str, change: Any, message: str):
    folder = Path(shutil.copytree(plain, tmp_path / "checkpoint"))
    changed = CONFIG[section] | change if isinstance(change, dict) else change
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG | {section: changed}))
    with pytest.raises(UserError, match=message):
        paraformer.load(folder)


# Pruning


HEADS = {"encoder_conf.kept_heads": 2, "decoder_conf.kept_heads": 2}


def test_a_pruned_model_is_smaller_and_repeats_whether_it_is_measured_or_not(plain: Path, recordings: list[Recording]):
    model, config = paraformer.load(plain), paraformer.read_config(plain)
    calibration = paraformer.calibration(plain, recordings[1:], PRUNE)
    split = (calibration, calibration, PRUNE)
    accuracy = prune.tuning_accuracy(paraformer, plain, model, recordings[1:])
    first, small_config, record = prune.prune(paraformer, model, config, *split, accuracy=accuracy)
    second, _, _ = prune.prune(paraformer, model, config, *split, accuracy=lambda _: 0.0)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert record["removed"] == pytest.approx(0.1, abs=0.01)
    units = {f"{part}.linear_units": small_config[part]["linear_units"] for part in ("encoder_conf", "decoder_conf")}
    assert record["pruned"]["widths"] == units | HEADS
    assert record["pruned"]["macs"] < record["dense"]["macs"]
    assert {name.rsplit(".", 1)[0] for name in record["layer_error"]} == {
        *("encoder.encoders0.0", "encoder.encoders.0"),
        *("decoder.decoders.0", "decoder.decoders2.0", "decoder.decoders3.0"),
    }


def test_either_side_may_give_more(plain: Path, recordings: list[Recording]):
    model, config = paraformer.load(plain), paraformer.read_config(plain)
    calibration = paraformer.calibration(plain, recordings[1:], PRUNE)
    changes = {"allocation": "sensitivity", "heads": True, "ratio": 0.05, "distill_steps": 0}
    chosen = PRUNE.model_copy(update=changes)
    split = (calibration, calibration, chosen)
    _, small_config, record = prune.prune(paraformer, model, config, *split, accuracy=lambda _: 0.0)
    assert 0.05 <= record["removed"] <= 0.05 + prune.TOLERANCE
    assert record["pruned"]["parameters"] == paraformer.counter(config)(record["pruned"]["widths"])
    assert record["sensitivity"].keys() == {"encoder_conf.linear_units", "decoder_conf.linear_units", *HEADS}
    assert paraformer.widths(paraformer.build(small_config)) == record["pruned"]["widths"]


@pytest.fixture(scope="module")
def headless(plain: Path, recordings: list[Recording], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plain checkpoint with one head of two left in every attention."""
    folder, model, config = tmp_path_factory.mktemp("headless"), paraformer.load(plain), paraformer.read_config(plain)
    config = paraformer.with_widths(config, dict.fromkeys(HEADS, 1))
    features = paraformer.calibration(plain, recordings[1:], PRUNE)
    small, refit = paraformer.cut(model, config, features, "least_squares", 1e-4)
    refit()
    checkpoint.save(small, config, plain, folder)
    return folder


def test_fewer_heads_are_exported_and_fused_like_all(headless: Path, exported: Path, tmp_path: Path):
    export_variant(paraformer, headless, tmp_path, opset=18, tolerance=TOLERANCE)
    sizes = [(folder / "model.onnx").stat().st_size for folder in (exported, tmp_path)]
    assert sizes[1] < 0.9 * sizes[0]
    fused = [attention.rewrite(onnx_ir.load(folder / "model.onnx"))[1] for folder in (exported, tmp_path)]
    assert fused[0] == fused[1] == 3  # of two encoder layers and one decoder layer


def test_funasr_does_not_take_fewer_heads_for_all(headless: Path):
    from funasr.models.sanm.encoder import SANMEncoder

    with pytest.raises(TypeError, match="kept_heads"):
        SANMEncoder(560, **yaml.safe_load((headless / "config.yaml").read_text())["encoder_conf"])


@pytest.mark.parametrize("kept", [0, 3, "1"])
def test_heads_that_there_are_not_cannot_be_kept(plain: Path, kept: object):
    config = paraformer.read_config(plain)
    with pytest.raises(UserError, match=rf"found decoder_conf\.kept_heads {kept!r}, wanted 1 to 2"):
        paraformer.build(config | {"decoder_conf": config["decoder_conf"] | {"kept_heads": kept}})


def test_a_search_chooses_the_text(plain: Path, exported: Path, recordings: list[Recording]):
    graph_set = graphs.read(exported)
    artifact = graph_set, onnxruntime.load(exported, graph_set)
    spellings = paraformer.vocabulary(plain).spellings
    chosen = next(token for token, spelling in enumerate(spellings) if spelling)
    asked = list[np.ndarray]()

    def search(log_probabilities: np.ndarray) -> np.ndarray:
        asked.append(log_probabilities)
        return np.full(len(log_probabilities), chosen)

    greedy, found = (paraformer.load_recognizer(plain, artifact, s)(recordings[1].samples()) for s in (None, search))
    [log_probabilities] = asked
    np.testing.assert_allclose(np.exp(log_probabilities).sum(axis=1), 1, rtol=1e-4)
    assert log_probabilities.argmax(axis=1).tolist() == greedy.tokens
    assert found.tokens == [chosen] * len(greedy.tokens)
    assert found.text.replace(" ", "") == spellings[chosen] * len(greedy.tokens)


def test_control_symbols_are_no_text_and_parts_of_words_are(tmp_path: Path):
    (tmp_path / "tokens.json").write_text('["<blank>", "<s>", "</s>", "hel@@", "lo", "好", "<unk>"]')
    vocabulary = paraformer.vocabulary(tmp_path)
    assert (list(vocabulary.spellings), vocabulary.blank) == (["", "", "", "hel", "lo", "好", ""], None)


@pytest.mark.parametrize("samples", [0, 1, 160, 384, 399])
def test_audio_of_less_than_a_window_has_no_text(plain: Path, exported: Path, samples: int):
    graph_set = graphs.read(exported)
    transcribe = paraformer.load_recognizer(plain, (graph_set, onnxruntime.load(exported, graph_set)))
    assert transcribe(np.full(samples, 0.1, np.float32)) == asr.Outcome([], "")
