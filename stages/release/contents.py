"""The files that a consumer loads: a build's graphs under each name that one asks for, and the checkpoint's others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from stages.core import graphs
from stages.core.errors import UserError
from stages.core.files import sha256, write_json, write_text
from stages.models.shared import pieces, tokens, yaml_config
from stages.release import funasr_server

MEASURED = (".onnx", ".data", ".engine", ".ort", ".xml", ".bin", ".tflite", ".torchscript")  # what holds a network
NETWORK = (".pt", *MEASURED)  # of a checkpoint: weights, and graphs that nobody measured here
SHERPA_TOKENS = "tokens.txt"
CMVN_PATH = "cmvn_file"
README, CHECKPOINT_README = "README.md", "README.checkpoint.md"
OWN = ("provenance.json", "bom.cdx.json", "SHA256SUMS", "model.sig", "prune.json")  # never a checkpoint's


def fill(artifact: Path, checkpoint: Path, measured: Mapping[str, str], folder: Path, *, integer: bool) -> None:
    """Copy an artifact's files, and a checkpoint's without its networks, into `folder`.

    measured: SHA-256 of the artifact's files by name. integer: the graphs are INT8, for which FunASR has other names.
    They get these beside the plain ones, whose graphs are the same: a release has one precision, so whoever does not
    ask for INT8 gets what was measured too. The weights are not doubled, as they lie in a file of their own.

    Raises:
        UserError: an artifact's file is not the one that was measured.
    """
    for path in sorted(checkpoint.iterdir()):
        if path.is_file() and path.suffix not in NETWORK and path.name not in OWN:
            shutil.copyfile(path, folder / (CHECKPOINT_README if path.name == README else path.name))
    files = graphs.files(artifact)
    for name, digest in measured.items():
        shutil.copyfile(files[name], folder / name)
        if sha256(folder / name) != digest:
            raise UserError(f"{files[name]} is not the file that was measured; run `dvc repro` again")
        if integer and name.endswith(".onnx"):
            shutil.copyfile(folder / name, folder / quantized_name(name))
    graphs.write(folder, graphs.read(artifact))  # its weights are here, wherever the artifact has them
    if (folder / pieces.FILE).is_file() and not (folder / tokens.FILE).is_file():
        write_json(folder / tokens.FILE, pieces.read(folder))
    if (folder / tokens.FILE).is_file():  # a checkpoint's own tokens.txt is a plain list, as FunASR trains with
        write_text(folder / SHERPA_TOKENS, sherpa_tokens(folder / tokens.FILE))
    if (config := folder / funasr_server.CONFIG).is_file():
        remove_cmvn_path(config)
    funasr_server.complete(folder)


def remove_cmvn_path(config: Path) -> None:
    """Remove `frontend_conf.cmvn_file` from config.yaml, where FunASR's trainer writes the path of its am.mvn.

    `funasr_onnx` fails on it: it has the path of the am.mvn beside config.yaml to pass.
    """
    read = yaml_config.read(config)
    front = read.get("frontend_conf")
    if isinstance(front, dict) and CMVN_PATH in front:
        del front[CMVN_PATH]
        yaml_config.write(read, config)


def quantized_name(name: str) -> str:
    """Return the name that FunASR's runtimes have for an INT8 graph: `model_quant.onnx` of `model.onnx`."""
    return f"{name.removesuffix('.onnx')}_quant.onnx"


def sherpa_tokens(place: Path) -> str:
    """Return a checkpoint's list of tokens as sherpa-onnx reads it: a line with each and its number."""
    listed = json.loads(place.read_text(encoding="utf-8"))
    return "".join(f"{token} {number}\n" for number, token in enumerate(listed))
