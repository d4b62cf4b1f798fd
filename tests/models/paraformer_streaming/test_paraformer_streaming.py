"""A stream through the exported graphs says what FunASR's own torch networks say, to the last chunk."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml

from stages import prune
from stages.core import graphs
from stages.core.errors import UserError
from stages.core.graphs import Feeds
from stages.core.parity import LoadedArtifact, Network
from stages.corpora import manifest
from stages.corpora.manifest import SAMPLE_RATE, Line, Recording
from stages.export import export_variant
from stages.models import paraformer_streaming
from stages.models.paraformer.pruning import decode
from stages.models.paraformer_streaming.pruning import Chunks
from stages.models.shared import asr
from stages.models.shared.checkpoint import save, torch_networks
from stages.runtimes import onnxruntime
from tests import workspace

WINDOW_SECONDS = 0.025  # of the front end; pruning leaves out what is shorter
TOLERANCE = 5e-5
CHUNK = 9600  # samples: 600 ms
TOKENS = ["<blank>", "<s>", "</s>", *"零一二三四五六七八九", "<unk>"]
CONFIG: dict[str, Any] = {
    "model": "ParaformerStreaming",
    "model_conf": {"ctc_weight": 0.0, "lsm_weight": 0.1, "predictor_weight": 1.0, "predictor_bias": 1},
    "encoder": "SANMEncoderChunkOpt",
    "encoder_conf": {"output_size": 16, "attention_heads": 2, "linear_units": 24, "num_blocks": 2}
    | {"input_layer": "pe_online", "kernel_size": 11, "selfattention_layer_type": "sanm", "chunk_size": [12, 15]}
    | {"stride": [8, 10], "pad_left": [0, 0], "encoder_att_look_back_factor": [4, 4]}
    | {"decoder_att_look_back_factor": [1, 1]},
    "decoder": "ParaformerSANMDecoder",
    "decoder_conf": {"attention_heads": 2, "linear_units": 24, "num_blocks": 2, "att_layer_num": 2}
    | {"kernel_size": 11, "sanm_shfit": 5},
    "predictor": "CifPredictorV2",
    "predictor_conf": {"idim": 16, "threshold": 1.0, "l_order": 1, "r_order": 1, "tail_threshold": 0.45},
    "frontend_conf": {"fs": 16000, "window": "hamming", "n_mels": 80, "frame_length": 25, "frame_shift": 10}
    | {"lfr_m": 7, "lfr_n": 6, "dither": 0.0},
}
PRUNE = workspace.PRUNE.model_copy(update={"ratio": 0.05, "variations": 0})
LENGTHS = {
    "one sample": 1,
    "less than a frame": 300,
    "one stacked frame": 960,
    "half a chunk": CHUNK // 2,
    "almost a chunk": CHUNK - 1,
    "one chunk": CHUNK,
    "a chunk and a sample": CHUNK + 1,
    "a chunk and a frame": CHUNK + 960,
    "between": 2 * CHUNK + 3000,
    "long last chunk": 3 * CHUNK + 7000,
    "whole chunks": 4 * CHUNK,
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, which fire some five tokens in a chunk."""
    folder = tmp_path_factory.mktemp("streaming") / "checkpoint"
    folder.mkdir()
    torch.manual_seed(0)
    model = paraformer_streaming.build(CONFIG | {"vocab_size": len(TOKENS)})
    with torch.no_grad():
        model.decoder.output_layer.bias[[0, 1, 2, -1]] = -1e3  # a text shows digits only
    torch.save(model.state_dict(), folder / "model.pt")
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (folder / "tokens.json").write_text(json.dumps(TOKENS))
    shift, scale = " ".join(["-10.0"] * 560), " ".join(["0.2"] * 560)
    (folder / "am.mvn").write_text(
        f"<Nnet>\n<Splice> 560 560\n[ 0 ]\n<AddShift> 560 560\n<LearnRateCoef> 0 [ {shift} ]\n"
        f"<Rescale> 560 560\n<LearnRateCoef> 0 [ {scale} ]\n</Nnet>\n"
    )
    return folder


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both graphs, each as close to torch as the export stage wants it."""
    folder = tmp_path_factory.mktemp("exported")
    export_variant(paraformer_streaming, checkpoint, folder, opset=18, tolerance=TOLERANCE)
    return folder


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Recording]:
    """A gliding, interrupted tone in noise, cut at every length that ends a stream differently."""
    folder = tmp_path_factory.mktemp("recordings")
    rng = np.random.default_rng(0)
    time = np.arange(max(LENGTHS.values())) / SAMPLE_RATE
    tone = np.sin(2 * np.pi * 400 * time * (1 + 0.2 * np.sin(2 * np.pi * 0.7 * time))) * (np.sin(15 * time) > 0)
    sound = 0.1 * tone + 0.01 * rng.standard_normal(len(time))
    lines = []
    for name, length in LENGTHS.items():
        digest = manifest.write_wav(folder / f"{length}.wav", sound[:length])
        lines.append(Line(id=name, wav=f"{length}.wav", seconds=length / SAMPLE_RATE, text="一二三", sha256=digest))
    manifest.write(folder, "evaluation", lines)
    return manifest.read(folder, "evaluation")


def torch_artifact(folder: Path) -> LoadedArtifact:
    model = paraformer_streaming.load(folder)
    graph_set = paraformer_streaming.graph_set(model)
    return graph_set, torch_networks(graph_set, paraformer_streaming.export_modules(model))


def onnx_artifact(folder: Path) -> LoadedArtifact:
    graph_set = graphs.read(folder)
    return graph_set, onnxruntime.load(folder, graph_set)


class Tapped:
    """An artifact that keeps what goes through its networks."""

    def __init__(self, artifact: LoadedArtifact) -> None:
        graph_set, networks = artifact
        self.calls: list[tuple[str, Feeds, Feeds]] = []
        self.artifact = graph_set, {name: self._tap(name, network) for name, network in networks.items()}

    def _tap(self, name: str, network: Network) -> Network:
        def run(feeds: Feeds) -> Feeds:
            outputs = network(feeds)
            self.calls.append((name, feeds, outputs))
            return outputs

        return run


def funasr_says(folder: Path, recordings: list[Recording], step: int | None) -> list[str]:
    """FunASR's own torch networks in its own pipeline: each file at once, or `step` samples at a time."""
    config, model = paraformer_streaming.read_config(folder), paraformer_streaming.load(folder)
    tools = {
        "frontend": paraformer_streaming.network.load_frontend(folder, config),
        "tokenizer": asr.load_tokenizer(folder, config),
        **{key: config[key] for key in ("encoder_conf", "frontend_conf")},
    }
    texts = []
    for recording in recordings:
        samples, text = torch.from_numpy(recording.samples()), ""
        cache: dict[str, Any] = {}
        size = step or len(samples)
        for start in range(0, len(samples), size):
            part, last = samples[start : start + size], start + size >= len(samples)
            how = {"cache": cache, "is_final": last, "chunk_size": [5, 10, 5], "device": "cpu"}
            with torch.inference_mode():
                results, _ = model.inference([part], key=[""], **how, **tools)
            text += results[0]["text"]
        texts.append(text)
    return texts


def test_the_path_that_funasr_s_trainer_writes_is_not_needed():
    folder = workspace.ROOT / "zoo" / "paraformer_streaming"
    config = paraformer_streaming.read_config(folder)
    trained = config | {"frontend_conf": config["frontend_conf"] | {"cmvn_file": "/home/someone/exp/am.mvn"}}
    frontends = [paraformer_streaming.network.load_frontend(folder, c) for c in (config, trained)]
    np.testing.assert_array_equal(*[frontend.cmvn for frontend in frontends])


def test_streams_of_any_length_match_torch_chunk_by_chunk(
    checkpoint: Path, exported: Path, recordings: list[Recording]
):
    ours, theirs = Tapped(onnx_artifact(exported)), Tapped(torch_artifact(checkpoint))
    said, wanted = (
        paraformer_streaming.score(checkpoint, tapped.artifact, "streaming", recordings) for tapped in (ours, theirs)
    )
    assert said == wanted
    for (name, _, found), (same, _, expected) in zip(ours.calls, theirs.calls, strict=True):
        assert name == same
        for output, value in expected.items():
            np.testing.assert_allclose(
                found[output], value, atol=TOLERANCE * max(1, np.abs(value).max()), err_msg=output
            )
    frames = {feeds["speech"].shape[1] for name, feeds, _ in ours.calls if name == "encoder"}
    assert {10, 11, 15, 20} <= frames  # the flushed look-ahead, short last chunks, whole ones
    assert len({o.text for o in said}) > len(said) / 2  # the texts are not all alike


@pytest.mark.parametrize("step", [pytest.param(None, id="at once"), pytest.param(CHUNK, id="chunk by chunk")])
def test_the_text_is_funasr_s_own(checkpoint: Path, recordings: list[Recording], step: int | None):
    outcomes = paraformer_streaming.score(checkpoint, torch_artifact(checkpoint), "streaming", recordings)
    assert [o.text for o in outcomes] == funasr_says(checkpoint, recordings, step)


def test_audio_as_it_arrives_gives_the_text_of_the_whole_piece_by_piece(checkpoint: Path, recordings: list[Recording]):
    artifact = torch_artifact(checkpoint)
    listen = paraformer_streaming.load_streaming_recognizer(checkpoint, artifact)
    whole = paraformer_streaming.score(checkpoint, artifact, "streaming", recordings)
    for recording, outcome in zip(recordings, whole, strict=True):
        samples = recording.samples()
        pieces = list(listen(samples))
        assert len(pieces) == len(samples) // CHUNK + 1
        assert "".join(pieces) == outcome.text.replace(" ", "")


def test_funasr_s_onnx_runtime_says_the_same(checkpoint: Path, exported: Path, recordings: list[Recording]):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its imports
        from funasr_onnx.paraformer_online_bin import Paraformer
    for name in ("config.yaml", "tokens.json", "am.mvn"):
        shutil.copy(checkpoint / name, exported)
    runtime = Paraformer(str(exported), intra_op_num_threads=1)
    # It splits a last chunk of more than 300 ms, which torch does not.
    chosen = [r for r in recordings if r.id in {"a chunk and a frame", "between"}]
    outcomes = paraformer_streaming.score(checkpoint, onnx_artifact(exported), "streaming", chosen)
    for recording, outcome in zip(chosen, outcomes, strict=True):
        samples, text = recording.samples(), ""
        cache: dict[str, Any] = {}
        for start in range(0, len(samples), CHUNK):
            state = {"cache": cache, "is_final": start + CHUNK >= len(samples)}
            text += "".join(part["preds"][0] for part in runtime(samples[start : start + CHUNK], param_dict=state))
        assert text == outcome.text
        assert len(text) > 3


def test_where_no_token_fires_nothing_is_decoded(checkpoint: Path, recordings: list[Recording]):
    graph_set, networks = torch_artifact(checkpoint)

    def never_fires(feeds: Feeds) -> Feeds:
        outputs = networks["encoder"](feeds)
        return outputs | {"alphas": np.zeros_like(outputs["alphas"])}

    deaf = Tapped((graph_set, {**networks, "encoder": never_fires}))
    outcome = paraformer_streaming.score(checkpoint, deaf.artifact, "streaming", recordings[-1:])[0]
    assert outcome == asr.Outcome([], "")
    assert {name for name, *_ in deaf.calls} == {"encoder"}


def test_a_row_of_a_padded_batch_is_as_if_alone(checkpoint: Path):
    graph_set, networks = torch_artifact(checkpoint)
    rng = np.random.default_rng(0)
    speech = rng.standard_normal((2, 20, 560)).astype(np.float32)
    together = networks["encoder"]({"speech": speech, "speech_lengths": np.array([20, 15], np.int32)})
    alone = networks["encoder"]({"speech": speech[1:, :15], "speech_lengths": np.array([15], np.int32)})
    np.testing.assert_allclose(together["enc"][1:, :15], alone["enc"], atol=1e-5)
    np.testing.assert_allclose(together["alphas"][1:], np.pad(alone["alphas"], ((0, 0), (0, 5))), atol=1e-5)

    sizes = {"batch": 3, "enc_length": 20, "token_length": 4}
    feeds = graphs.example_feeds(graph_set.graphs["decoder"], sizes, seed=0)
    caches = {name: rng.standard_normal(feeds[name].shape).astype(np.float32) for name in ("in_cache_0", "in_cache_1")}
    feeds |= caches | {"acoustic_embeds_len": np.array([4, 2, 0], np.int32)}
    together = networks["decoder"](feeds)
    alone = networks["decoder"](
        {name: value[1:2, :2] if name == "acoustic_embeds" else value[1:2] for name, value in feeds.items()}
        | {"enc": feeds["enc"][1:2, : feeds["enc_len"][1]]}
    )
    np.testing.assert_allclose(together["logits"][1:2, :2], alone["logits"], atol=1e-5)
    for i in range(2):
        np.testing.assert_allclose(together[f"out_cache_{i}"][1:2], alone[f"out_cache_{i}"], atol=1e-5)
        np.testing.assert_array_equal(together[f"out_cache_{i}"][2], caches[f"in_cache_{i}"][2])  # it had no token


@pytest.fixture(scope="module")
def chunks(checkpoint: Path, recordings: list[Recording]) -> list[Chunks]:
    return paraformer_streaming.calibration(checkpoint, recordings, PRUNE)


def test_whole_recordings_at_once_say_what_their_streams_say(
    checkpoint: Path, recordings: list[Recording], chunks: list[Chunks]
):
    model, tapped = paraformer_streaming.load(checkpoint), Tapped(torch_artifact(checkpoint))
    pruned_on = [recording for recording in recordings if recording.seconds >= WINDOW_SECONDS]
    paraformer_streaming.score(checkpoint, tapped.artifact, "streaming", pruned_on)
    streamed = np.concatenate([outputs["logits"][0] for name, _, outputs in tapped.calls if name == "decoder"])
    together = paraformer_streaming.pruning.pad(chunks)
    with torch.inference_mode():
        encoded, weights = paraformer_streaming.pruning.encode(model, together)
        said = decode(model, encoded, paraformer_streaming.pruning.locate(together, weights))
    np.testing.assert_allclose(said.numpy(), streamed, atol=1e-5 * np.abs(streamed[:, 3:13]).max())


def test_a_pruned_model_is_as_small_as_asked_and_streams(
    checkpoint: Path, recordings: list[Recording], chunks: list[Chunks], tmp_path: Path
):
    model, config = paraformer_streaming.load(checkpoint), paraformer_streaming.read_config(checkpoint)
    accuracy = prune.tuning_accuracy(paraformer_streaming, checkpoint, model, recordings[-1:])
    small, small_config, record = prune.prune(
        paraformer_streaming, model, config, chunks, chunks, PRUNE, accuracy=accuracy
    )
    assert record["removed"] == pytest.approx(PRUNE.ratio, abs=prune.TOLERANCE)
    units = {f"{part}.linear_units": small_config[part]["linear_units"] for part in ("encoder_conf", "decoder_conf")}
    assert record["pruned"]["widths"] == units | {"encoder_conf.kept_heads": 2, "decoder_conf.kept_heads": 2}
    assert record["pruned"]["macs"] < record["dense"]["macs"]
    assert len(record["layer_error"]) == 5  # every feed-forward layer: two of the encoder, three of the decoder
    assert max(record["layer_error"].values()) < 0.5
    save(small, small_config, checkpoint, tmp_path)
    outcomes = paraformer_streaming.score(tmp_path, torch_artifact(tmp_path), "streaming", recordings[-1:])
    dense = paraformer_streaming.score(checkpoint, torch_artifact(checkpoint), "streaming", recordings[-1:])
    assert len(outcomes[0].tokens) == pytest.approx(len(dense[0].tokens), abs=2)


def test_one_head_of_two_streams_too(
    checkpoint: Path, recordings: list[Recording], chunks: list[Chunks], tmp_path: Path
):
    model, config = paraformer_streaming.load(checkpoint), paraformer_streaming.read_config(checkpoint)
    fewer = {"encoder_conf.kept_heads": 1, "decoder_conf.kept_heads": 1}
    config = paraformer_streaming.with_widths(config, fewer)
    small, refit = paraformer_streaming.cut(model, config, chunks, "least_squares", 1e-4)
    assert len(refit()) == 4  # two layers of the encoder, two of the decoder
    assert paraformer_streaming.widths(small).items() > fewer.items()
    save(small, config, checkpoint, tmp_path)
    outcomes = paraformer_streaming.score(tmp_path, torch_artifact(tmp_path), "streaming", recordings[-1:])
    dense = paraformer_streaming.score(checkpoint, torch_artifact(checkpoint), "streaming", recordings[-1:])
    assert len(outcomes[0].tokens) == pytest.approx(len(dense[0].tokens), abs=2)


def test_names_and_axes_are_funasr_s(exported: Path):
    encoder, decoder = (onnx.load(exported / f"{name}.onnx").graph for name in ("model", "decoder"))
    assert [i.name for i in encoder.input] == ["speech", "speech_lengths"]
    assert [o.name for o in encoder.output] == ["enc", "enc_len", "alphas"]
    of_decoder = ["enc", "enc_len", "acoustic_embeds", "acoustic_embeds_len", "in_cache_0", "in_cache_1"]
    assert [i.name for i in decoder.input] == of_decoder
    assert [o.name for o in decoder.output] == ["logits", "sample_ids", "out_cache_0", "out_cache_1"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            {"frontend_conf": None}, "no frontend_conf; the family paraformer_streaming needs it", id="missing"
        ),
        pytest.param(
            {"encoder": "SANMEncoder"}, "encoder: found 'SANMEncoder', wanted 'SANMEncoderChunkOpt'", id="other"
        ),
        pytest.param(
            {"decoder_conf": {"sanm_shfit": 0, "kernel_size": 11}},
            r"sanm_shfit: found 0, wanted 5: .*looks only back",
            id="looks ahead",
        ),
        pytest.param(
            {"decoder_conf": {"num_blocks": 3, "att_layer_num": 2}},
            r"att_layer_num: found 2, wanted 3: .*looks only back",
            id="no caches",
        ),
    ],
)
def test_a_config_of_something_else_is_named(checkpoint: Path, tmp_path: Path, change: dict[str, Any], message: str):
    shutil.copytree(checkpoint, tmp_path, dirs_exist_ok=True)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG | change))
    with pytest.raises(UserError, match=message):
        paraformer_streaming.load(tmp_path)
