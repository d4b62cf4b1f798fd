"""The graphs say what FunASR's own torch network says: of padded batches, of silence, with and without hotwords."""

from __future__ import annotations

import json
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
from stages.corpora import manifest
from stages.corpora.manifest import SAMPLE_RATE, Line, Recording
from stages.export import export_variant
from stages.models import asr, checkpoint, paraformer, seaco
from stages.models.checkpoint import torch_networks
from stages.pruning import recovery
from stages.rewrites import attention
from stages.runtimes import onnxruntime
from tests import workspace

TOLERANCE = 5e-5
TOKENS = ["<blank>", "<s>", "</s>", *"零一二三四五六七八九", "<unk>"]
NO_BIAS = 13
CONFIG: dict[str, Any] = {
    "model": "Paraformer",
    "model_conf": {"ctc_weight": 0.0, "lsm_weight": 0.1, "predictor_weight": 1.0},
    "encoder": "SANMEncoder",
    "encoder_conf": {"output_size": 16, "attention_heads": 2, "linear_units": 24, "num_blocks": 2}
    | {"input_layer": "pe", "kernel_size": 11, "selfattention_layer_type": "sanm"},
    "decoder": "ParaformerSANMDecoder",
    "decoder_conf": {"attention_heads": 2, "linear_units": 24, "num_blocks": 2, "att_layer_num": 1, "kernel_size": 11},
    "predictor": "CifPredictorV2",
    "predictor_conf": {"idim": 16, "threshold": 1.0, "l_order": 1, "r_order": 1, "tail_threshold": 0.45},
    "frontend_conf": {"fs": 16000, "window": "hamming", "n_mels": 80, "frame_length": 25, "frame_shift": 10}
    | {"lfr_m": 7, "lfr_n": 6, "dither": 0.0},
}
SEACO: dict[str, Any] = CONFIG | {
    "model": "SeacoParaformer",
    "model_conf": CONFIG["model_conf"] | {"inner_dim": 16, "bias_encoder_type": "lstm", "NO_BIAS": NO_BIAS},
    "predictor": "CifPredictorV3",
    "predictor_conf": CONFIG["predictor_conf"]
    | {"smooth_factor2": 0.25, "noise_threshold2": 0.01, "upsample_times": 3, "use_cif1_cnn": False}
    | {"upsample_type": "cnn_blstm"},
    "seaco_decoder": "ParaformerSANMDecoder",
    "seaco_decoder_conf": {"attention_heads": 2, "linear_units": 24, "num_blocks": 4, "kernel_size": 21}
    | {"use_output_layer": False, "wo_input_layer": True},
}
PRUNE = workspace.PRUNE.model_copy(update={"ratio": 0.1})


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The tensors are tiny: threads would wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(recovery, "REFIT_THREADS", 1)
    yield
    torch.set_num_threads(threads)


def make(folder: Path, config: dict[str, Any]) -> Path:
    """A checkpoint with random weights that hear about four tokens a second."""
    folder.mkdir()
    torch.manual_seed(0)
    model = paraformer.build(config | {"vocab_size": len(TOKENS)})
    with torch.no_grad():
        model.predictor.cif_output.bias.fill_(-1.2)
    torch.save(model.state_dict(), folder / "model.pt")
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "tokens.json").write_text(json.dumps(TOKENS))
    shift, scale = " ".join(["-10.0"] * 560), " ".join(["0.2"] * 560)
    (folder / "am.mvn").write_text(
        f"<Nnet>\n<Splice> 560 560\n[ 0 ]\n<AddShift> 560 560\n<LearnRateCoef> 0 [ {shift} ]\n"
        f"<Rescale> 560 560\n<LearnRateCoef> 0 [ {scale} ]\n</Nnet>\n"
    )
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("plain") / "checkpoint", CONFIG)


@pytest.fixture(scope="module")
def hotwords(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("hotwords") / "checkpoint", SEACO)


@pytest.fixture(scope="module")
def exported(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    export_variant(paraformer, plain, folder, opset=18, tolerance=TOLERANCE)
    return folder


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Recording]:
    """Bursts of noise from a tenth of a second to four seconds, and digital silence."""
    folder, rng, lines = tmp_path_factory.mktemp("corpus"), np.random.default_rng(0), []
    for name, seconds, level in (("short", 0.1, 0.1), ("long", 4.0, 0.1), ("middle", 1.7, 0.3), ("silence", 1.0, 0.0)):
        samples = level * rng.standard_normal(int(seconds * SAMPLE_RATE))
        samples *= 1 + np.sin(np.arange(len(samples)) / 3000)
        digest = manifest.write_wav(folder / f"{name}.wav", samples)
        lines.append(Line(id=name, wav=f"{name}.wav", seconds=seconds, text="一二三", sha256=digest))
    manifest.write(folder, "evaluation", lines)
    return manifest.read(folder, "evaluation")


def features(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    speech = 3 * torch.randn(len(lengths), max(lengths), 560, generator=torch.Generator().manual_seed(lengths[0]))
    return speech, torch.tensor(lengths, dtype=torch.int32)


# Paraformer


@pytest.mark.parametrize("lengths", [[1], [7], [167], [700], [90, 60, 5]])
def test_the_network_is_funasr_s_own(plain: Path, lengths: list[int]):
    model = paraformer.load(plain)
    speech, speech_lengths = features(lengths)
    with torch.no_grad():
        logits, token_num = paraformer.Recognizer(model)(speech, speech_lengths)
        encoded, _ = model.encode(speech, speech_lengths)
        embeds, wanted_num, _, _ = model.calc_predictor(encoded, speech_lengths)
        assert token_num.tolist() == wanted_num.tolist()
        if wanted_num.max() > 0:
            wanted, _ = model.cal_decoder_with_predictor(encoded, speech_lengths, embeds, wanted_num.long())
            torch.testing.assert_close(logits, wanted, atol=1e-4, rtol=0)


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
    together = run({"speech": speech.numpy(), "speech_lengths": np.array([120, 120], np.int32)})
    alone = run({"speech": speech[:1].numpy(), "speech_lengths": np.array([120], np.int32)})
    count = int(alone["token_num"][0])
    assert together["token_num"][0] == count > 10
    np.testing.assert_allclose(together["logits"][0, :count], alone["logits"][0], atol=1e-4)


def test_a_score_is_funasr_s_text_with_the_network_swapped(plain: Path, exported: Path, recordings: list[Recording]):
    model, config = paraformer.load(plain), paraformer.read_config(plain)
    tools = {"tokenizer": asr.load_tokenizer(plain, config), "frontend": paraformer.load_frontend(plain, config)}
    texts = [paraformer.recognize(model, recording.samples(), **tools) for recording in recordings]
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
            "model", "BAT", "model: found 'BAT', wanted Paraformer or SeacoParaformer, which the family", id="model"
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
        pytest.param("frontend_conf", None, "no frontend_conf; the family paraformer needs it", id="missing"),
    ],
)
def test_another_network_is_refused(plain: Path, tmp_path: Path, section: str, change: Any, message: str):
    folder = Path(shutil.copytree(plain, tmp_path / "checkpoint"))
    changed = CONFIG[section] | change if isinstance(change, dict) else change
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG | {section: changed}))
    with pytest.raises(UserError, match=message):
        paraformer.load(folder)


# SeACo


@pytest.mark.parametrize(("lengths", "words"), [([80], 1), ([80], 50), ([80], 51), ([80], 70), ([80, 50], 3)])
def test_hotwords_are_heard_as_funasr_hears_them(hotwords: Path, lengths: list[int], words: int):
    model = paraformer.load(hotwords)
    speech, speech_lengths = features(lengths)
    rng = np.random.default_rng(words)
    numbers = rng.permutation(10_000)[: words - 1]  # no word twice: which of two equals stays is a matter of rounding
    word_list = [[3 + int(digit) for digit in str(number)] for number in numbers] + [[1]]
    padded = torch.zeros(words, seaco.HOTWORD_TOKENS, dtype=torch.int32)
    for row, word in zip(padded, word_list, strict=True):
        row[: len(word)] = torch.tensor(word)
    modules = {name: module.eval() for name, module in paraformer.export_modules(model).items()}
    with torch.no_grad():
        model.hotword_output_layer.bias[NO_BIAS] = 0.5  # so that some tokens are hotwords' and some are not
        (embedded,) = modules["bias_encoder"](padded)
        last = torch.stack([embedded[len(word) - 1, i] for i, word in enumerate(word_list)])
        found = modules["model"](speech, speech_lengths, last.repeat(len(lengths), 1, 1))
        encoded, _ = model.encode(speech, speech_lengths)
        embeds, token_num, _, _ = model.calc_predictor(encoded, speech_lengths)
        wanted = model._seaco_decode_with_ASF(encoded, speech_lengths, embeds, token_num.long(), hw_list=word_list)
        plainly, _ = model.cal_decoder_with_predictor(encoded, speech_lengths, embeds, token_num.long())
        _, _, weights, peaks = model.calc_predictor_timestamp(encoded, speech_lengths, token_num)
    biased = (wanted != plainly).any(dim=-1)
    assert biased.any()
    assert not biased.all()
    assert found[1].tolist() == token_num.tolist()
    for ours, theirs in zip((found[0], *found[2:]), (wanted, weights, peaks), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_hotword_graphs_are_exported_and_scored(hotwords: Path, tmp_path: Path, recordings: list[Recording]):
    export_variant(paraformer, hotwords, tmp_path, opset=18, tolerance=TOLERANCE)
    graph_set = graphs.read(tmp_path)
    assert {graph.file for graph in graph_set.graphs.values()} == {"model.onnx", "model_eb.onnx"}
    networks = {name: onnxruntime.network(tmp_path / g.file, g) for name, g in graph_set.graphs.items()}
    model, config = paraformer.load(hotwords), paraformer.read_config(hotwords)
    tools = {"tokenizer": asr.load_tokenizer(hotwords, config), "frontend": paraformer.load_frontend(hotwords, config)}
    texts = [paraformer.recognize(model, recording.samples(), hotword="", **tools) for recording in recordings]
    outcomes = paraformer.score(hotwords, (graph_set, networks), "offline", recordings)
    assert [outcome.text for outcome in outcomes] == texts


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
