"""FunASR's checkpoints as the model hub has them, with random weights: a folder for every entry of the catalogue.

    python -m zoo.replicas seaco_paraformer_large FOLDER [--tiny]

A replica has the hub's files, every key of its config.yaml (zoo/replicas.yaml), and a state dict with the names and
wrappings that FunASR's loader copes with. It says nothing of accuracy and everything of whether a checkpoint gets
through: the tests take each of them, tiny, from `pin` to a release, and `make scale` takes one at full size. What the
hub's own checkpoints do not have and a user's may, such as half precision, is given to one of them each.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import struct
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from sentencepiece import sentencepiece_model_pb2

from stages import models
from stages.commands import catalogue
from stages.corpora import manifest, spoken_commands
from stages.models.shared import pieces

Config = dict[str, Any]
Weights = dict[str, Any]
SEED = 0
LARGE = ("*.pt", "*.bin", "*.wav")  # what the hub has in Git LFS


# What may be done to a state dict before it is saved


def halve(weights: Weights) -> Weights:
    """Store every weight as fp16."""
    return {name: weight.half() for name, weight in weights.items()}


def prefix_as_data_parallel(weights: Weights) -> Weights:
    """Prefix the names of weights as torch's wrapper for several devices does."""
    return {f"module.{name}": weight for name, weight in weights.items()}


def wrap_with_training_state(weights: Weights) -> Weights:
    """Wrap the weights in the file that FunASR's trainer saves after an epoch."""
    optimizer = {"state": {}, "param_groups": [{"lr": 5e-4, "params": [0]}]}
    return {"epoch": 3, "state_dict": weights, "optimizer": optimizer, "best_step_or_epoch": "model.pt.ep3"}


def wrap_as_fairseq_pretrains(weights: Weights) -> Weights:
    """Prefix all but the last layer, add a part of the teacher as a mapping of its own, and wrap it all in `model`."""
    prefix = "d2v_model."
    named = {name if name.startswith("proj.") else prefix + name: weight for name, weight in weights.items()}
    teacher = {name: weight.clone() for name, weight in weights.items() if name.startswith("blocks.0.")}
    return {"model": named | {f"{prefix}_ema": teacher}}


# Changes to a random network so that different inputs give different results


def match_speech_rate(model: Any) -> None:
    """Set biases so that Paraformer finds four tokens a second, as in speech, none of them blank, begin or end."""
    torch.nn.init.constant_(model.predictor.cif_output.bias, -1.2)
    model.decoder.output_layer.bias.data[:3] = -10.0


def balance_hotwords(model: Any) -> None:
    """Set weights so that the hotword decoder decides about half of the tokens, and depends on the hotwords."""
    match_speech_rate(model)
    model.hotword_output_layer.bias.data[:3] = -10.0
    for layer in model.seaco_decoder.decoders:
        layer.src_attn.linear_out.weight.data *= 5
    model.hotword_output_layer.bias.data[model.NO_BIAS] += 1.0


def gather_statistics(model: Any) -> None:
    """Give batch norms the statistics of noise: without, little of a deep network's input is left at its end."""
    for norm in (
        module for module in model.modules() if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d)
    ):
        norm.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(4, 100, 80))
    model.eval()


def rule_out_unknown(model: Any) -> None:
    """Set a bias so that a punctuation model never predicts `<unk>`, the first of its marks."""
    model.decoder.bias.data[0] = -10.0


def balance_silence(model: Any) -> None:
    """Set weights so that silence is about as likely as all else: torch's usual ones let little of it through."""
    for layer in (module for module in model.encoder.modules() if isinstance(module, torch.nn.Linear)):
        layer.weight.data *= 2
        if layer.bias is not None:
            layer.bias.data.zero_()
    last = model.encoder.out_linear2.linear
    last.bias.data[0] = float(np.log(last.out_features))


# Files beside weights and configuration


def cmvn(width: int) -> bytes:
    """Return am.mvn for features of that width: a network that shifts and scales, as Kaldi writes it."""
    size = f"{width} {width}"
    shift, scale = (" ".join([value] * width) for value in ("-8.0", "0.2"))
    return (
        f"<Nnet>\n<Splice> {size}\n[ 0 ]\n<AddShift> {size}\n<LearnRateCoef> 0 [ {shift} ]\n"
        f"<Rescale> {size}\n<LearnRateCoef> 0 [ {scale} ]\n</Nnet>\n"
    ).encode()


def picture() -> bytes:
    """Return a PNG of one white dot."""

    def part(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(b"\0\xff")) + part(b"IEND", b"")


SPEECH = ("<blank>", "<s>", "</s>", *spoken_commands.characters())
TAGS = (
    *("<|zh|>", "<|en|>", "<|ja|>", "<|HAPPY|>", "<|SAD|>", "<|ANGRY|>", "<|NEUTRAL|>"),
    *("<|Speech|>", "<|BGM|>", "<|Applause|>", "<|withitn|>", "<|woitn|>"),
)
TEXT = ("<blank>", "<s>", "</s>", "app", "python", "word")
LABELS = Path(__file__).with_name("emotion2vec").joinpath("tokens.txt").read_text(encoding="utf-8").split()[:-1]
SEGMENTATION = "".join(f"{character} {character}\n" for character in SPEECH[3:]).encode()
TALK = {"example/asr_example.wav": None, "am.mvn": cmvn(560), "seg_dict": SEGMENTATION}
TALK_METAS = {"tokenizer_conf": {"seg_dict_file": "seg_dict"}, "frontend_conf": {"cmvn_file": "am.mvn"}}
WORDS = ("今天", "昨天", "公司", "学校", "因为", "所以", "我们", "他们", "然后", "接着", "苹果", "时候", "已经", "检查")
# Words that jieba's dictionary lacks, with and without a frequency, as the hub's file has them.
WORD_LIST = "孙女士 1000 n\n周律师 1000\n刘医生\n去公司\n".encode()
PROSE = {"example/punc_example.txt": "今天天气很好我们去公园走走吧\n".encode(), "fig/struct.png": picture()}


# The checkpoints


@dataclass(frozen=True)
class Replica:
    """What a checkpoint has beside its config.yaml.

    task: as the hub names it. vocabulary: how many tokens at full size, and how many in the small one. tokens: the
    first of them; characters follow, and the unknown one is last. files: the others by path, None for a recording.
    listed_in, weights: the files of tokens and weights. metas: those files that configuration.json hands to FunASR.
    settle: what is done to the random network. quirks: what is done to its state dict, in order.
    """

    task: str
    vocabulary: tuple[int, int]
    tokens: Sequence[str]
    files: Mapping[str, bytes | None]
    listed_in: str = "tokens.json"
    weights: str = "model.pt"
    metas: Mapping[str, Any] = field(default_factory=dict)
    settle: Callable[[Any], None] = lambda _: None
    quirks: Sequence[Callable[[Weights], Weights]] = ()


SPEECH_TO_TEXT = "auto-speech-recognition"
PARAFORMER = Replica(
    SPEECH_TO_TEXT,
    (8404, 80),
    SPEECH,
    TALK | {"fig/struct.png": picture()},
    metas=TALK_METAS,
    settle=match_speech_rate,
)
REPLICAS = {
    "paraformer_large": PARAFORMER,
    # as a fine-tuned one may have them
    "paraformer_large_online": replace(PARAFORMER, quirks=(prefix_as_data_parallel, wrap_with_training_state)),
    "bicif_paraformer_large": PARAFORMER,
    "seaco_paraformer_large": Replica(
        SPEECH_TO_TEXT,
        (8404, 80),
        SPEECH,
        TALK | {"example/hotword.txt": "北京\n".encode(), "fig/res.png": picture(), "fig/seaco.png": picture()},
        metas=TALK_METAS,
        settle=balance_hotwords,
    ),
    "sensevoice_small": Replica(
        SPEECH_TO_TEXT,
        (25_055, 80),
        ("<unk>", "<s>", "</s>", *TAGS, *spoken_commands.characters()),
        {"example/zh.wav": None, "am.mvn": cmvn(560), "fig/struct.png": picture()},
        listed_in=pieces.FILE,
        metas={"frontend_conf": {"cmvn_file": "am.mvn"}},
    ),
    "punc_ct_transformer": Replica(
        "punctuation",
        (272_727, 3000),
        TEXT,
        PROSE,
        settle=rule_out_unknown,
        quirks=(halve,),  # as somebody who wants half the download may save it
    ),
    "ct_punc": Replica(
        "punctuation",
        (471_067, 3000),
        (*TEXT, *WORDS, "孙女士", "周律师", "刘医生", "去公司"),
        PROSE | {"jieba_usr_dict": WORD_LIST},
        metas={"jieba_usr_dict": "jieba_usr_dict"},
        settle=rule_out_unknown,
    ),
    "punc_ct_transformer_realtime": Replica("punctuation", (272_727, 3000), TEXT, PROSE, settle=rule_out_unknown),
    "emotion2vec_plus_large": Replica(
        "emotion-recognition",
        (9, 9),
        LABELS,
        {"example/test.wav": None, "logo.png": picture()},
        listed_in="tokens.txt",
        quirks=(wrap_as_fairseq_pretrains,),
    ),
    "campplus_zh_common": Replica(
        "speaker-verification",
        (0, 0),
        (),
        {"examples/speaker1_a_cn_16k.wav": None, "structure.png": picture(), "requirements.txt": b"torch\n"},
        weights="campplus_cn_common.bin",
        settle=gather_statistics,
    ),
    "fsmn_vad": Replica(
        "voice-activity-detection",
        (0, 0),
        (),
        {"example/vad_example.wav": None, "am.mvn": cmvn(400), "fig/struct.png": picture()},
        metas={"frontend_conf": {"cmvn_file": "am.mvn"}},
        settle=balance_silence,
    ),
}


def make(name: str, folder: Path, *, tiny: bool, seed: int = SEED) -> None:
    """Write the replica of an entry of the catalogue into `folder`; the same seed gives the same weights."""
    replica, config = REPLICAS[name], configuration(name, tiny=tiny)
    tokens = list(token_list(replica, tiny=tiny))
    texts = {
        ".gitattributes": "".join(f"{kind} filter=lfs diff=lfs merge=lfs -text\n" for kind in LARGE),
        "README.md": card(name, replica),
        "configuration.json": json.dumps(hub_configuration(replica), indent=2),
        "config.yaml": yaml.dump(config, Dumper=_Dumper, sort_keys=False, allow_unicode=True),
    }
    listed = {replica.listed_in: token_file(replica.listed_in, tokens)} if tokens else {}
    written = ((path, text.encode()) for path, text in texts.items())
    for path, content in chain(written, listed.items(), replica.files.items()):
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            manifest.write_wav(place, 0.05 * np.random.default_rng(seed).standard_normal(manifest.SAMPLE_RATE))
        else:
            place.write_bytes(content)
    torch.save(random_weights(name, config | {"vocab_size": len(tokens)}, seed), folder / replica.weights)


def configuration(name: str, *, tiny: bool) -> Config:
    """Return what config.yaml of a replica holds."""
    entry = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))[name]
    config: Config = copy.deepcopy(entry["config"])  # parts of it are those of other entries too
    for path, value in entry["tiny"].items() if tiny else ():
        *sections, key = path.split(".")
        section = config
        for step in sections:
            section = section[step]
        section[key] = value
    return config


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]  # the library has no types
    """Writes numbers as Python does, `1e-05` for one, as what wrote the hub's files did; and no anchors."""

    def ignore_aliases(self, _: object) -> bool:
        return True


FLOAT = "tag:yaml.org,2002:float"
_Dumper.add_representer(float, lambda dumper, value: dumper.represent_scalar(FLOAT, repr(value)))
_Dumper.add_implicit_resolver(FLOAT, re.compile(r"\d+e-\d+"), [*"123456789"])  # else it would write the tag before it


def token_list(replica: Replica, *, tiny: bool) -> Iterator[str]:
    """Yield as many tokens as the replica has: its own, then Chinese characters, then words, and `<unk>`."""
    count, known = replica.vocabulary[tiny], set(replica.tokens)
    last = ["<unk>"] if count and "<unk>" not in known else []
    characters = (chr(code) for code in range(0x4E00, 0x9FA6))
    words = (f"w{number}" for number in range(count))
    more = (token for token in chain(characters, words) if token not in known)
    yield from islice(chain(replica.tokens, more), count - len(last))
    yield from last


def token_file(name: str, tokens: Sequence[str]) -> bytes:
    """Return what a file of tokens holds, in the form that its name tells."""
    if name == pieces.FILE:
        return sentencepiece_model(tokens)
    as_json = name.endswith(".json")
    return (json.dumps(tokens, ensure_ascii=False, indent=0) if as_json else "\n".join(tokens)).encode()


def sentencepiece_model(tokens: Sequence[str]) -> bytes:
    """Return a SentencePiece model with these pieces, the first three of which are special."""
    model: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]  # made when it is imported
    kinds = {"<unk>": "UNKNOWN", "<s>": "CONTROL", "</s>": "CONTROL"}
    for number, token in enumerate(tokens):
        kind = kinds.get(token, "USER_DEFINED" if token.startswith("<|") else "NORMAL")
        model.pieces.add(piece=token, score=-number, type=getattr(model.SentencePiece, kind))
    model.trainer_spec.model_type = model.trainer_spec.BPE
    model.normalizer_spec.name = "identity"
    return bytes(model.SerializeToString())


def random_weights(name: str, config: Config, seed: int) -> Weights:
    """Return the state dict of FunASR's own network of a configuration, as the replica's file has it."""
    replica = REPLICAS[name]
    family = models.load(catalogue.models()[name].family)
    torch.manual_seed(seed)
    model = family.build(config)
    replica.settle(model)
    weights: Weights = dict(model.state_dict())
    for quirk in replica.quirks:
        weights = quirk(weights)
    return weights


def hub_configuration(replica: Replica) -> Config:
    """Return what configuration.json holds: for ModelScope what the model is for, for FunASR which file is what."""
    metas: Config = {"init_param": replica.weights, "config": "config.yaml", **copy.deepcopy(dict(replica.metas))}
    if replica.tokens:
        key = "bpemodel" if replica.listed_in == pieces.FILE else "token_list"
        metas["tokenizer_conf"] = {key: replica.listed_in} | metas.get("tokenizer_conf", {})
    return {
        "framework": "pytorch",
        "task": replica.task,
        "model": {"type": "funasr"},
        "pipeline": {"type": "funasr-pipeline"},
        "model_name_in_hub": {"ms": "", "hf": ""},
        "file_path_metas": metas,
    }


def card(name: str, replica: Replica) -> str:
    """Return README.md with the front matter that the hub reads."""
    source: Any = catalogue.models()[name].sources[0]  # of a hub
    front = {
        "tasks": [replica.task],
        "domain": ["audio"],
        "frameworks": ["pytorch"],
        "license": catalogue.models()[name].license,
        "language": ["cn"],
        "tags": ["FunASR"],
        "widgets": [{"task": replica.task, "model_revision": source.revision}],
    }
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n# {name}\n\nA replica with random weights.\n"


def main(argv: Sequence[str]) -> None:
    """Write one replica."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=REPLICAS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tiny", action="store_true", help="every kind of layer, at a size for tests")
    options = parser.parse_args(argv)
    make(options.name, options.folder, tiny=options.tiny)


if __name__ == "__main__":
    main(sys.argv[1:])
