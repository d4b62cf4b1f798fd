"""FunASR's offline recognizer with only its network swapped."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stages.core.graphs import Feeds
from stages.core.parity import LoadedArtifact, Network
from stages.corpora.manifest import Recording
from stages.models.accuracy import PARAFORMER
from stages.models.paraformer.network import build, load_frontend, read_config
from stages.models.shared import asr, checkpoint, times, tokens
from stages.models.shared.asr import Outcome
from stages.models.shared.frontend import extractor, fills_window
from stages.models.shared.search import Search, Vocabulary, choose

MODES, METRICS = PARAFORMER
PART = "@@"  # after a piece of a word that goes on


class Swap:
    """Takes the place of the network in FunASR's module: its parts hand on what the artifact computed."""

    def __init__(self, model: Any, network: Network, search: Search | None = None) -> None:
        """Replace the parts of `model`, which then run `network`, and choose tokens by `search` or else greedily."""
        self.network, self.search = network, search
        self.outputs: Feeds = {}
        model.encode, model.calc_predictor, model.cal_decoder_with_predictor = self.encode, self.predict, self.decode
        model.calc_predictor_timestamp = self.locate

    def encode(self, speech: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the whole network on features (1, frames, input_size), which FunASR then hands to the other parts."""
        features: Feeds = {"speech": speech.numpy(), "speech_lengths": lengths.numpy().astype(np.int32)}
        self.outputs = self.network(features | self.extra_inputs())
        if self.search:
            logits = torch.from_numpy(self.outputs["logits"])[0, : int(self.outputs["token_num"][0])]
            logits[:] = choose(self.search, logits)
        return speech, lengths

    def extra_inputs(self) -> Feeds:
        """Give the graph's inputs that are not features: none."""
        return {}

    def predict(self, *_: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the number of tokens where FunASR's predictor returns it."""
        return None, torch.from_numpy(self.outputs["token_num"]).float(), None, None

    def decode(self, *_: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return the log-probabilities (1, tokens, vocab) of the recording that was encoded last."""
        return torch.from_numpy(self.outputs["logits"]), None

    def locate(self, *_: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the weights and peaks from which FunASR takes the tokens' times, where its predictor does.

        They are copies, because FunASR scales the weights in place. A plain Paraformer does not ask for them.
        """
        return None, None, *(torch.tensor(self.outputs[name]) for name in times.NAMES)

    @property
    def tokens(self) -> list[int]:
        """Return the best token at each position of the recording that was encoded last."""
        best: list[int] = self.outputs["logits"][0, : int(self.outputs["token_num"][0])].argmax(axis=-1).tolist()
        return best


def score(folder: Path, artifact: LoadedArtifact, mode: str, recordings: Iterable[Recording]) -> list[Outcome]:
    """Run FunASR's recognizer over the recordings, one at a time, with the artifact's network in place of its own.

    mode: `offline`.
    """
    if mode not in MODES:
        raise ValueError(f"found mode {mode!r}, wanted one of {MODES}")
    transcribe = load_recognizer(folder, artifact)
    return [transcribe(recording.samples()) for recording in recordings]


def load_recognizer(
    folder: Path, artifact: LoadedArtifact, search: Search | None = None
) -> Callable[[NDArray[np.float32]], Outcome]:
    """Load FunASR's recognizer as a function of audio float32 (samples,), as `score` runs it.

    search: what chooses the tokens, in place of greedy decoding.
    """
    config = read_config(folder)
    model = checkpoint.described(build, config, folder)
    return transcriber(folder, config, model, Swap(model, artifact[1]["model"], search))


def vocabulary(folder: Path) -> Vocabulary:
    """Read the tokens of a checkpoint, of which `<s>` and its like are no text, and `@@` ends a part of a word."""
    listed = tokens.read(folder)
    return Vocabulary(["" if tokens.SYMBOL.fullmatch(t) else t.removesuffix(PART) for t in listed], blank=None)


def load_features(folder: Path) -> Callable[[NDArray[np.float32]], Feeds]:
    """Load FunASR's front end as a function of audio float32 (samples,), which gives the graph's inputs without batch.

    It raises a UserError for audio that is shorter than a window.
    """
    torch.set_num_threads(1)
    extract = extractor(load_frontend(folder, read_config(folder)))

    def prepare(samples: NDArray[np.float32]) -> Feeds:
        speech = extract(samples)
        return {"speech": speech, "speech_lengths": np.array(len(speech), np.int32)}

    return prepare


def load_decoder(folder: Path) -> Callable[[Feeds, Feeds], list[str]]:
    """Load what FunASR does after the network, as a function of the graph's inputs and outputs: a text for each row."""
    torch.set_num_threads(1)
    config = read_config(folder)
    model, tokenizer = checkpoint.described(build, config, folder), asr.load_tokenizer(folder, config)

    def decode(inputs: Feeds, outputs: Feeds) -> list[str]:
        Swap(model, lambda _: outputs)
        speech, lengths = (torch.from_numpy(inputs[name]) for name in ("speech", "speech_lengths"))
        with torch.inference_mode():
            found = model.inference(
                speech, lengths[:, None], key=[""], data_type="fbank", tokenizer=tokenizer, device="cpu"
            )
        return [result["text"] for result in found[0]] if found else [""] * len(speech)

    return decode


def transcriber(folder: Path, config: dict[str, Any], model: Any, swap: Swap) -> Callable[..., Outcome]:
    """Give FunASR's module, of which `swap` took parts over, its front end and tokenizer.

    Returns:
        A function of audio float32 (samples,), and of `hotword`, which SeACo-Paraformer alone uses. In audio that is
        shorter than a window it finds nothing.
    """
    torch.set_num_threads(1)  # the tensors are small, and other processes have the other cores
    tools = {"tokenizer": asr.load_tokenizer(folder, config), "frontend": load_frontend(folder, config)}

    hidden = {model.blank_id, model.sos, model.eos}

    def transcribe(samples: NDArray[np.float32], hotword: str = "") -> Outcome:
        if not fills_window(samples, tools["frontend"]):
            return Outcome([], "")
        # Without the spaces, FunASR opens what ends in `.txt`, and asks the network for what begins with `http`.
        text = recognize(model, samples, hotword=f" {hotword} ", **tools)
        return Outcome(swap.tokens, text, times=times.locate(swap.outputs, swap.tokens, hidden))

    return transcribe


def recognize(model: Any, samples: NDArray[np.float32], **tools: Any) -> str:
    """Return FunASR's text of a recording; none where it finds no token."""
    with torch.inference_mode():
        found = model.inference([torch.from_numpy(samples)], key=[""], device="cpu", **tools)
    results = found[0] if found else []
    text: str = results[0]["text"] if results else ""
    return text
