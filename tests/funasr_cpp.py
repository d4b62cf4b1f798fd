"""What FunASR's C++ runtime reads of a model's folder, as its sources have it (`runtime/onnxruntime/src`, 1.4.3)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnxruntime as ort
import yaml

FRONT_END = {"fs": int, "window": str, "n_mels": int, "frame_length": int, "frame_shift": int}
LFR = {"lfr_m": int, "lfr_n": int}
NUMBER = (int, float)
KEYS: Mapping[
    str, Mapping[str, Mapping[str, Any]]
] = {  # without one of them it ends; fsmn-vad.cpp, paraformer.cpp, ...
    "ct_transformer": {"model_conf": {"punc_list": list}},
    "fsmn_vad": {
        "frontend_conf": FRONT_END | {"dither": NUMBER},
        "model_conf": {
            "max_end_silence_time": int,
            "max_single_segment_time": int,
            "speech_noise_thres": NUMBER,
        },
    },
    "paraformer": {"frontend_conf": {"fs": int}},
    "paraformer_streaming": {
        "frontend_conf": FRONT_END | LFR,
        "encoder_conf": {"output_size": int},
        "decoder_conf": {"num_blocks": int, "kernel_size": int},
        "predictor_conf": {"threshold": NUMBER, "tail_threshold": NUMBER},
    },
    "seaco_paraformer": {"frontend_conf": {"fs": int}},
    "sensevoice": {"frontend_conf": FRONT_END | LFR, "encoder_conf": {"output_size": int}},
}
FILES = {
    "ct_transformer": ("tokens.json",),
    "fsmn_vad": ("am.mvn",),
    "seaco_paraformer": ("am.mvn", "tokens.json", "seg_dict", "model_eb.onnx"),
}
RECOGNIZER = ("am.mvn", "tokens.json")
FLOAT, INT = "tensor(float)", "tensor(int32)"
INPUTS = {  # it goes by their order, and looks at no type
    "ct_transformer": [INT, INT],
    "ct_transformer_realtime": [INT, INT, FLOAT, FLOAT],
    "paraformer": [FLOAT, INT],
    "paraformer_streaming": [FLOAT, INT],
    "seaco_paraformer": [FLOAT, INT, FLOAT],
    "sensevoice": [FLOAT, INT, INT, INT],
}
MARKS = 6  # com-define.h: how many marks it takes a punctuation network to have


def complaints(folder: Path, model: str) -> Iterator[str]:
    """Yield what the runtime would stumble over in a folder of a model of `zoo/`, or of the same kind."""
    family = model.removesuffix("_realtime")
    files = [*FILES.get(family, RECOGNIZER), "config.yaml", "model.onnx"]
    yield from (f"no {name}" for name in files if not (folder / name).is_file())
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    for section, keys in KEYS[family].items():
        for key, kind in keys.items():
            if not isinstance(value := config.get(section, {}).get(key), kind):
                yield f"config.yaml {section}.{key}: found {value!r}"
    yield from _check_text(folder, config)
    yield from _check_graph(folder, model)


def _check_text(folder: Path, config: Mapping[str, Any]) -> Iterator[str]:
    if (tokens := folder / "tokens.json").is_file() and not all(
        isinstance(t, str) for t in json.loads(tokens.read_text())
    ):
        yield "tokens.json is no list of strings"
    if (means := folder / "am.mvn").is_file():  # it takes the first field of each line
        lines = means.read_text().splitlines()
        if not all(line.split() for line in lines) or sum("<LearnRateCoef> 0 [ " in line for line in lines) != 2:
            yield "am.mvn has empty lines, or not two lists of numbers"
    if (words := folder / "seg_dict").is_file():
        wrong = [
            line
            for line in words.read_text(encoding="utf-8").splitlines()
            if not re.fullmatch(r"[^\t]+\t\S.*\S|[^\t]+\t\S", line)
        ]
        yield from (f"seg_dict: found {line!r}, wanted a tab behind the word" for line in wrong[:1])
    if (folder / "jieba_usr_dict").is_file():
        if config.get("seg_jieba") is not True:
            yield "config.yaml has no seg_jieba: true"
        yield from (f"no {name}" for name in ("jieba.c.dict", "jieba.hmm") if not (folder / name).is_file())


def _check_graph(folder: Path, model: str) -> Iterator[str]:
    session = ort.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    found, first = [one.type for one in session.get_inputs()], session.get_outputs()[0]
    if found != INPUTS.get(model, found):
        yield f"model.onnx: inputs {found}"
    if first.type != FLOAT or (model.startswith("ct_transformer") and first.shape[-1] != MARKS):
        yield f"model.onnx: {first.name} is {first.type} {first.shape}"
