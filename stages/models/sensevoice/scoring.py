"""FunASR's SenseVoice with only its network swapped."""

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
from stages.models.paraformer.network import load_frontend
from stages.models.paraformer.scoring import recognize
from stages.models.sensevoice.metrics import MODES, Outcome, parse
from stages.models.sensevoice.network import QUERIES, build, read_config
from stages.models.shared import checkpoint, pieces, tokens
from stages.models.shared.frontend import extractor, fills_window
from stages.models.shared.search import Search, Vocabulary, choose

LANGUAGE = "auto"  # the recognizer is to find it out
WORD = "▁"  # SentencePiece's mark of a word's beginning


class Swap:
    """Takes the place of the network in FunASR's module: its parts hand on what the artifact computed."""

    def __init__(self, model: Any, network: Network, search: Search | None) -> None:
        """Replace the parts of `model`, which then run `network`, and choose tokens by `search` or else greedily."""
        self.network, self.search, self.blank = network, search, model.blank_id
        self.queries: list[int] = []
        self.logits = torch.empty(0)
        self.size = model.embed.embedding_dim
        del model.embed, model.encoder
        model.embed, model.encoder = self.embed, self.encode
        model.ctc.log_softmax = self.log_probabilities

    def embed(self, rows: torch.Tensor) -> torch.Tensor:
        """Note which rows of the table of queries FunASR asks for: language, way of writing, emotion and event."""
        self.queries += rows.flatten().tolist()
        return torch.zeros(*rows.shape, self.size)

    def encode(self, speech: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the whole network on features (1, QUERIES + frames, input_size), which FunASR put the queries before."""
        language, textnorm, *_ = self.queries
        self.queries.clear()
        feeds: Feeds = {
            "speech": speech[:, QUERIES:].numpy(),
            "speech_lengths": (lengths - QUERIES).numpy().astype(np.int32),
            "language": np.array([language], np.int32),
            "textnorm": np.array([textnorm], np.int32),
        }
        outputs = self.network(feeds)
        self.logits = torch.from_numpy(outputs["ctc_logits"])
        if self.search:
            self.logits[0, QUERIES:] = choose(self.search, self.logits[0, QUERIES:])
        return self.logits, torch.from_numpy(outputs["encoder_out_lens"])

    def log_probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Normalize logits, which `encode` gave in place of the encoder's frames."""
        return torch.log_softmax(logits, dim=-1)

    @property
    def tokens(self) -> list[int]:
        """Return the tokens of the recording that was encoded last, as FunASR collapses them."""
        best = torch.unique_consecutive(self.logits[0].argmax(dim=-1))
        collapsed: list[int] = best[best != self.blank].tolist()
        return collapsed


def score(folder: Path, artifact: LoadedArtifact, mode: str, recordings: Iterable[Recording]) -> list[Outcome]:
    """Run FunASR's recognizer over the recordings, one at a time, with the artifact's network in place of its own.

    mode: `woitn`, as it is spoken, or `withitn`, with inverse text normalisation.
    """
    if mode not in MODES:
        raise ValueError(f"found mode {mode!r}, wanted one of {MODES}")
    transcribe = _load(folder, artifact, mode)
    return [transcribe(recording.samples()) for recording in recordings]


def load_recognizer(
    folder: Path, artifact: LoadedArtifact, search: Search | None = None
) -> Callable[[NDArray[np.float32]], Outcome]:
    """Load FunASR's recognizer as a function of audio float32 (samples,): a pipeline adds marks and figures itself.

    search: what chooses the tokens of its text, in place of greedy decoding; tags stay greedy.
    """
    return _load(folder, artifact, MODES[0], search)


def load_features(folder: Path) -> Callable[[NDArray[np.float32]], Feeds]:
    """Load FunASR's front end as a function of audio float32 (samples,), which gives the graph's inputs without batch.

    The language is to be found out, and nothing is normalized, as in `load_recognizer`. It raises a UserError for audio
    that is shorter than a window.
    """
    torch.set_num_threads(1)
    config = read_config(folder)
    model, extract = checkpoint.described(build, config, folder), extractor(load_frontend(folder, config))
    queries = {"language": model.lid_dict[LANGUAGE], "textnorm": model.textnorm_dict[MODES[0]]}

    def prepare(samples: NDArray[np.float32]) -> Feeds:
        speech = extract(samples)
        numbers = {"speech_lengths": len(speech)} | queries
        return {"speech": speech} | {name: np.array(number, np.int32) for name, number in numbers.items()}

    return prepare


def load_decoder(folder: Path) -> Callable[[Feeds, Feeds], list[str]]:
    """Load what FunASR does after the network, as a function of the graph's inputs and outputs: a text for each row."""
    torch.set_num_threads(1)
    model = checkpoint.described(build, read_config(folder), folder)
    swap, tokenizer = Swap(model, lambda feeds: feeds, None), pieces.load(folder)

    def decode(inputs: Feeds, outputs: Feeds) -> list[str]:
        swap.network = lambda _: outputs
        speech, lengths = (torch.tensor(inputs[name]) for name in ("speech", "speech_lengths"))
        with torch.inference_mode():
            found, _ = model.inference(
                speech, lengths, key=[""], data_type="fbank", tokenizer=tokenizer, device="cpu", text_norm=MODES[0]
            )
        return [parse([], result["text"], MODES[0]).text for result in found]

    return decode


def vocabulary(folder: Path) -> Vocabulary:
    """Read the tokens of a checkpoint; control symbols and tags are no text."""
    spellings = ["" if tokens.SYMBOL.fullmatch(piece) else piece.replace(WORD, " ") for piece in pieces.read(folder)]
    return Vocabulary(spellings, blank=0)  # as the schema demands


def _load(
    folder: Path, artifact: LoadedArtifact, textnorm: str, search: Search | None = None
) -> Callable[[NDArray[np.float32]], Outcome]:
    torch.set_num_threads(1)  # the tensors are small, and other processes have the other cores
    model = checkpoint.described(build, read_config(folder), folder)
    swap = Swap(model, artifact[1]["model"], search)
    tools = {"tokenizer": pieces.load(folder), "frontend": load_frontend(folder, read_config(folder))}
    asked = {"language": LANGUAGE, "text_norm": textnorm}

    def transcribe(samples: NDArray[np.float32]) -> Outcome:
        if not fills_window(samples, tools["frontend"]):
            return parse([], "", textnorm)
        text = recognize(model, samples, **tools, **asked)
        return parse(swap.tokens, text, textnorm)

    return transcribe
