"""Checkpoints of the Paraformer families with tiny random networks, and recordings for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from stages.corpora import manifest
from stages.corpora.manifest import SAMPLE_RATE, Line, Recording
from stages.models.protocols import Family

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


def make(folder: Path, family: Family[Any], config: dict[str, Any]) -> Path:
    """A checkpoint with random weights that hear about four tokens a second."""
    folder.mkdir()
    torch.manual_seed(0)
    model: Any = family.build(config | {"vocab_size": len(TOKENS)})
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


def bursts(folder: Path) -> list[Recording]:
    """Bursts of noise from a tenth of a second to four seconds, and digital silence."""
    rng, lines = np.random.default_rng(0), []
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
