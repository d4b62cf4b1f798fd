"""What FunASR's own code says of recordings: its ONNX runtime of a release folder, its `AutoModel` of a checkpoint."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from stages.corpora.manifest import Recording
from stages.models import ct_transformer, paraformer_streaming
from stages.models.ct_transformer import read_marks
from stages.models.sensevoice.metrics import parse
from stages.models.shared.checkpoint import importing_funasr

VAD_CHUNK = 3200  # 200 ms
CHUNK = paraformer_streaming.network.CHUNK_SAMPLES
HOTWORDS = "客厅 卧室 天气"


def runtime(name: str, folder: Path) -> Any:
    """FunASR's class of that name over a release folder, on one thread as ours."""
    quantize = (folder / "model_quant.onnx").is_file()  # as its documentation wants it for INT8
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its imports, and of jieba's file of words, which it leaves open
        import funasr_onnx
        from funasr_onnx import paraformer_online_bin

        classes = {"ParaformerOnline": paraformer_online_bin.Paraformer}  # the package exports it under no name
        return (classes.get(name) or getattr(funasr_onnx, name))(str(folder), quantize=quantize, intra_op_num_threads=1)


def fsmn_vad(folder: Path, recordings: Sequence[Recording]) -> list[Any]:
    """Segments of each recording."""
    offline = runtime("Fsmn_vad", folder)
    extract = offline.extract_feat

    def one_recording(waveform: list[NDArray[np.float32]]) -> tuple[Any, Any]:
        features, lengths = extract(waveform)
        return features, lengths[0]  # it calls int() on the array of one, which NumPy 2.4 no longer allows

    offline.extract_feat = one_recording
    return [_segments(offline(recording.samples())) for recording in recordings]


def _segments(found: Any) -> Any:
    return found[0] if found else []


def fsmn_vad_online(folder: Path, recordings: Sequence[Recording]) -> list[list[int]]:
    """Beginnings and ends that it finds in each recording, heard 200 ms at a time."""
    return [_edges(runtime("Fsmn_vad_online", folder), recording.samples()) for recording in recordings]


def _edges(streaming: Any, samples: NDArray[np.float32]) -> list[int]:
    state: dict[str, Any] = {"in_cache": []}
    edges: list[int] = []
    for start in range(0, len(samples), VAD_CHUNK):
        state["is_final"] = start + VAD_CHUNK >= len(samples)
        edges += [
            edge for event in streaming(samples[start : start + VAD_CHUNK], param_dict=state) for edge in event[0]
        ]
    return [edge for edge in edges if edge >= 0]


def paraformer(folder: Path, recordings: Sequence[Recording]) -> list[str]:
    """Texts; those of a graph with times have a space after each token, those of another come with the tokens."""
    offline = runtime("Paraformer", folder)
    found = [offline(recording.samples())[0]["preds"] for recording in recordings]
    return [preds.replace(" ", "") if isinstance(preds, str) else preds[0] for preds in found]


def seaco(folder: Path, recordings: Sequence[Recording]) -> list[str]:
    """Texts of a recognizer that is given HOTWORDS."""
    offline = runtime("SeacoParaformer", folder)
    return [offline(recording.samples(), HOTWORDS)[0]["preds"] for recording in recordings]


def sense_voice(folder: Path, recordings: Sequence[Recording]) -> list[list[int]]:
    """Token ids of text as it is spoken, the language not told: of what FunASR's table of queries has as 0 and 15."""
    recognizer = runtime("SenseVoiceSmallONNX", folder)
    return [recognizer(recording.samples(), language=[0], textnorm=[15])[0] for recording in recordings]


def paraformer_online(folder: Path, recordings: Sequence[Recording]) -> list[str]:
    """Texts of recordings heard 600 ms at a time."""
    streaming = runtime("ParaformerOnline", folder)
    return [_streamed(streaming, recording.samples()) for recording in recordings]


def _streamed(streaming: Any, samples: NDArray[np.float32]) -> str:
    cache: dict[str, Any] = {}
    text = ""
    for start in range(0, len(samples), CHUNK):
        state = {"cache": cache, "is_final": start + CHUNK >= len(samples)}
        text += "".join(part["preds"][0] for part in streaming(samples[start : start + CHUNK], param_dict=state))
    return text


def streamed_alike(recordings: Sequence[Recording]) -> list[Recording]:
    """Those that both of FunASR's runtimes cut alike: one decodes a last chunk of over 300 ms in two steps."""
    return [r for r in recordings if 960 < len(r.samples()) % CHUNK <= CHUNK // 2]


def punctuation(folder: Path, recordings: Sequence[Recording]) -> list[str]:
    """The recordings' texts with marks of its own."""
    punctuate = runtime("CT_Transformer", folder)
    return [punctuate(" ".join(read_marks(recording.text)[0]))[0] for recording in recordings]


def punctuation_realtime(folder: Path, recordings: Sequence[Recording]) -> list[str]:
    """The same of the model that hears a text piece by piece."""
    return [_punctuated(runtime("CT_Transformer_VadRealtime", folder), recording.text) for recording in recordings]


def _punctuated(punctuate: Any, text: str) -> str:
    state: dict[str, Any] = {"cache": []}
    return "".join(punctuate(piece, state)[0] for piece in pieces(text))


def pieces(text: str) -> list[str]:
    """The tokens of a text without its marks, as many at a time as `ct_transformer` gives the realtime model."""
    tokens, step = read_marks(text)[0], ct_transformer.scoring.PIECE
    return [" ".join(tokens[i : i + step]) for i in range(0, len(tokens), step)]


def emotions(folder: Path, recordings: Sequence[Recording]) -> list[NDArray[np.float32]]:
    """A probability for each label, by ONNX Runtime alone: FunASR's has no class for it."""
    session = ort.InferenceSession(folder / "model.onnx")
    scores = []
    for recording in recordings:
        samples = recording.samples()
        normalized = torch.nn.functional.layer_norm(torch.from_numpy(samples), samples.shape)  # INT8 hears 1e-7 more
        (logits,) = session.run(["logits"], {"source": normalized[None].numpy()})
        shares = np.exp(logits[0] - logits[0].max())
        scores.append(shares / shares.sum())
    return scores


def embeddings(folder: Path, recordings: Sequence[Recording]) -> list[NDArray[np.float32]]:
    """Who speaks, by ONNX Runtime alone: FunASR's has no class for it."""
    with importing_funasr():
        from funasr.models.campplus.utils import extract_feature
    session = ort.InferenceSession(folder / "model.onnx")
    inputs = [extract_feature([torch.from_numpy(recording.samples())])[0].numpy() for recording in recordings]
    return [session.run(["embedding"], {"x": x})[0][0] for x in inputs]


# FunASR's AutoModel of a checkpoint folder


def auto_model(folder: Path) -> Any:
    """FunASR's own loader, of a checkpoint as the hub has it."""
    with importing_funasr():
        # These register what config.yaml names; the network's own classes are registered by the families of Kiln.
        import funasr.frontends.wav_frontend
        import funasr.models.specaug.specaug
        import funasr.tokenizer.char_tokenizer
        import funasr.tokenizer.sentencepiece_tokenizer  # noqa: F401
        from funasr.auto.auto_model import AutoModel

    quiet = {"disable_update": True, "disable_pbar": True, "disable_log": True, "log_level": "ERROR"}
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():  # of what pre-training used alone
        warnings.simplefilter("ignore", ResourceWarning)  # jieba's file of words stays open
        return AutoModel(model=str(folder), device="cpu", ncpu=1, **quiet)


def text(model: Any, recording: Recording, hotwords: str = "") -> str:
    """What it says of a recording; without the argument, SeACo-Paraformer would leave out what its graph has."""
    found = model.generate(input=recording.samples(), hotword=hotwords)
    return found[0]["text"] if found else ""


def tagged_text(model: Any, recording: Recording) -> str:
    """The same of SenseVoice, as it is spoken, without tags."""
    return parse([], model.generate(input=recording.samples(), use_itn=False)[0]["text"], "woitn").text


def text_with_hotwords(model: Any, recording: Recording) -> str:
    """The same of a recognizer that is given HOTWORDS."""
    return text(model, recording, HOTWORDS)


def times(model: Any, recording: Recording) -> list[list[int]]:
    """When it hears each token begin and end, in ms."""
    return model.generate(input=recording.samples(), hotword="")[0]["timestamp"]


def streamed_text(model: Any, recording: Recording) -> str:
    """The same in chunks of the runtime's size."""
    chunks = {"chunk_size": list(paraformer_streaming.network.CHUNK), "is_final": True}
    return model.generate(input=recording.samples(), cache={}, **chunks)[0]["text"]


def segments(model: Any, recording: Recording) -> list[list[int]]:
    """Where it hears speech, with the end-of-speech silence of the checkpoint."""
    silence = model.model.vad_opts.max_end_silence_time
    return model.generate(input=recording.samples(), max_end_silence_time=silence)[0]["value"]


def punctuated_text(model: Any, recording: Recording) -> str:
    """A recording's text with marks of its own."""
    return model.generate(input=" ".join(read_marks(recording.text)[0]))[0]["text"]


def punctuated_pieces(model: Any, recording: Recording) -> str:
    """The same piece by piece."""
    cache: dict[str, Any] = {}
    return "".join(model.generate(input=piece, cache=cache)[0]["text"] for piece in pieces(recording.text))


def emotion(model: Any, recording: Recording) -> list[float]:
    """A probability for each label."""
    return model.generate(input=recording.samples(), granularity="utterance")[0]["scores"]


def embedding(model: Any, recording: Recording) -> NDArray[np.float32]:
    """Who speaks."""
    return model.generate(input=recording.samples())[0]["spk_embedding"][0].numpy()
