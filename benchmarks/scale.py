"""Paraformer-large with random weights through the stages: `make scale` prints seconds, memory and latency of each.

The public configuration (50 encoder and 16 decoder blocks, 512 wide, 220 M parameters) says how the stages scale;
random weights say nothing of accuracy. Beside it: the same weights through FunASR's own export modules and the
TorchScript exporter, which FunASR's `export` was written for, and onnxsim's command line with its defaults. A stage
runs as it does under `dvc repro`: a process of its own, in a folder of its own with the repository's params.yaml.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
MODEL = "paraformer_large"
VOCABULARY = 8404
MIB = 2**20
SAN_M = {"dropout_rate": 0.1, "kernel_size": 11, "sanm_shfit": 0, "attention_heads": 4, "linear_units": 2048}
CONFIG = {
    "model": "Paraformer",
    "model_conf": {"ctc_weight": 0.0, "lsm_weight": 0.1, "length_normalized_loss": True}
    | {"predictor_weight": 1.0, "predictor_bias": 1, "sampling_ratio": 0.75},
    "encoder": "SANMEncoder",
    "encoder_conf": {
        "output_size": 512,
        "num_blocks": 50,
        "input_layer": "pe",
        "pos_enc_class": "SinusoidalPositionEncoder",
    }
    | {"normalize_before": True, "selfattention_layer_type": "sanm", **SAN_M},
    "decoder": "ParaformerSANMDecoder",
    "decoder_conf": {"num_blocks": 16, "att_layer_num": 16, **SAN_M},
    "predictor": "CifPredictorV2",
    "predictor_conf": {"idim": 512, "threshold": 1.0, "l_order": 1, "r_order": 1, "tail_threshold": 0.45},
    "frontend": "WavFrontend",
    "frontend_conf": {"fs": 16000, "window": "hamming", "n_mels": 80, "frame_length": 25, "frame_shift": 10}
    | {"lfr_m": 7, "lfr_n": 6, "dither": 0.0},
    "tokenizer": "CharTokenizer",
    "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
}
STAGES = (
    ("fetch", MODEL),
    ("corpus", "spoken_commands"),
    ("export", f"{MODEL}-dense"),
    ("simplify", f"{MODEL}-dense"),
    ("optimize", f"{MODEL}-dense"),
    ("quantize", f"{MODEL}-dense-int8"),
    ("prune", MODEL),
    ("benchmark", f"{MODEL}-cpu_int8"),
    ("benchmark", f"{MODEL}-cpu_fp32_opt"),
)


def make_checkpoint(folder: Path) -> None:
    """A checkpoint folder with random weights, seeded."""
    import torch

    from stages.models import paraformer

    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (folder / "tokens.json").write_text(json.dumps([f"t{i}" for i in range(VOCABULARY - 1)] + ["<unk>"]))
    shift, scale = " ".join(["-8.0"] * 560), " ".join(["0.2"] * 560)
    (folder / "am.mvn").write_text(
        f"<Nnet>\n<Splice> 560 560\n[ 0 ]\n<AddShift> 560 560\n<LearnRateCoef> 0 [ {shift} ]\n"
        f"<Rescale> 560 560\n<LearnRateCoef> 0 [ {scale} ]\n</Nnet>\n"
    )
    torch.manual_seed(0)
    model = paraformer.build(paraformer.read_config(folder))
    torch.nn.init.constant_(model.predictor.cif_output.bias, -1.2)  # four tokens a second, as speech has
    torch.save(model.state_dict(), folder / "model.pt")


def make_params(folder: Path) -> None:
    """The repository's params.yaml with this one model, pruned once and not distilled: that is as long as one wants."""
    settings = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    model = settings["models"]["paraformer"] | {"sources": [{"kind": "folder", "path": str(folder / "random")}]}
    prune = settings["prune"]["paraformer"] | {
        "distill_steps": 0,
        "variations": 0,
        "allocation": "uniform",
        "criterion": "magnitude",
    }

    def own(table: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
        lines = [line for line in table.values() if line["model"] == "paraformer"]
        return {
            key.replace("paraformer", MODEL, 1): line
            | {"model": MODEL}
            | ({"artifact": line["artifact"].replace("paraformer", MODEL, 1)} if "artifact" in line else {})
            for key, line in table.items()
            if line in lines
        }

    settings |= {"models": {MODEL: model}, "prune": {MODEL: prune}}
    settings["pipeline"]["builds"] = {}
    settings |= {table: own(settings[table]) for table in ("variants", "builds")}
    settings["quantize"]["graphs"] = own(settings["quantize"]["graphs"])
    settings["engine"]["builds"] = own(settings["engine"]["builds"])
    (folder / "params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))


def measured(command: Sequence[str], folder: Path) -> tuple[float, float]:
    """Seconds and peak resident MiB of a command, over it and what it waited for.

    Raises:
        SystemExit: it failed; its output was shown.
    """
    start = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: ended with status {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def funasr_export(checkpoint: Path, place: Path) -> None:
    """FunASR's own export modules with the TorchScript exporter; its `export` itself fails with this torch."""
    import torch

    from stages.models import checkpoint as files
    from stages.models import paraformer

    model = paraformer.load(checkpoint)
    with files.importing_funasr():
        from funasr.models.paraformer.export_meta import export_rebuild_model
    kinds = {part: CONFIG[part] for part in ("encoder", "predictor", "decoder")}
    rebuilt = export_rebuild_model(model, **kinds, max_seq_len=512, onnx=True, device="cpu")
    torch.onnx.export(
        rebuilt,
        rebuilt.export_dummy_inputs(),
        place,
        dynamo=False,
        opset_version=14,
        do_constant_folding=True,
        input_names=rebuilt.export_input_names(),
        output_names=rebuilt.export_output_names(),
        dynamic_axes=rebuilt.export_dynamic_axes(),
    )


def peers(folder: Path) -> list[tuple[str, float, float]]:
    """FunASR's export and onnxsim's command line on the same weights."""
    own, simplified = folder / "funasr.onnx", folder / "onnxsim.onnx"
    commands = {
        "FunASR's export, TorchScript": [
            sys.executable,
            "-m",
            "benchmarks.scale",
            "--funasr",
            str(folder / "random"),
            str(own),
        ],
        "onnxsim's command line": [str(Path(sys.executable).parent / "onnxsim"), str(own), str(simplified)],
    }
    return [(name, *measured(command, folder)) for name, command in commands.items()]


def main(argv: Sequence[str]) -> None:
    """Run every stage, then the peers, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="keep the work here; a temporary folder by default")
    parser.add_argument("--funasr", nargs=2, type=Path, metavar=("CHECKPOINT", "PLACE"), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.funasr:
        return funasr_export(*options.funasr)
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.folder or Path(scratch)).resolve()
        folder.mkdir(exist_ok=True)
        if not (folder / "random").exists():
            # In a process of its own: what this one holds would count as the peak of those it starts.
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                pool.submit(make_checkpoint, folder / "random").result()
        make_params(folder)
        size = (folder / "random" / "model.pt").stat().st_size / MIB
        measured([sys.executable, "-m", "stages", "pin", MODEL], folder)
        table = Table("step", "seconds", "peak MiB", "peak / checkpoint")
        steps = _stages(folder)
        _print_latency(folder)
        for name, seconds, peak in [*steps, *peers(folder)]:
            table.add_row(name, f"{seconds:.1f}", f"{peak:.0f}", f"{peak / size:.1f}x")
        Console().print(f"{size:.0f} MiB of weights", table)
    return None


def _stages(folder: Path) -> list[tuple[str, float, float]]:
    steps = []
    for stage, key in STAGES:
        steps.append((f"{stage} {key}", *measured([sys.executable, "-m", f"stages.{stage}", key], folder)))
        print(*steps[-1], flush=True)
    return steps


def _print_latency(folder: Path) -> None:
    table = Table("build", "case", "fp32 p50 ms", "p50 ms", "speedup")
    for path in sorted((folder / "reports" / "measurements").glob("*/*/latency.json")):
        for case, found in json.loads(path.read_text())["cases"].items():
            times = (f"{found['baseline_p50_ms']:.0f}", f"{found['p50_ms']:.0f}", f"{found['speedup']:.2f}x")
            table.add_row(path.parts[-3], case, *times)
    Console().print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
