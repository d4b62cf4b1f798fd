"""FunASR's recognizer with hotwords, with only its networks swapped; each mode lists so many words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.core.graphs import Feeds
from stages.core.parity import LoadedArtifact, Network
from stages.corpora.manifest import Recording
from stages.models.accuracy import LISTED, SEACO_PARAFORMER
from stages.models.paraformer.scoring import Swap, transcriber
from stages.models.seaco_paraformer.metrics import hotwords
from stages.models.seaco_paraformer.network import HOTWORD_TOKENS, build, read_config
from stages.models.shared import checkpoint
from stages.models.shared.asr import Outcome

MODES = SEACO_PARAFORMER.modes
Words = Sequence[Sequence[int]]


class HotwordSwap(Swap):
    """Takes the place of the networks in FunASR's module: that of Paraformer, with hotwords."""

    def __init__(self, model: Any, networks: dict[str, Network]) -> None:
        """Replace the parts of `model`, which then run `networks`."""
        super().__init__(model, networks["model"])
        self.model, self.bias_encoder = model, networks["bias_encoder"]
        self.embedded: dict[tuple[tuple[int, ...], ...], Feeds] = {}
        model._seaco_decode_with_ASF = lambda *_, **__: self.decode()[0]  # noqa: SLF001

    def extra_inputs(self) -> Feeds:
        """Embed the words that FunASR was told to prefer; a list once, however many recordings it serves.

        FunASR keeps these in `model.hotword_list` as token ids, `<s>`, which stands for none, behind them.
        """
        words = tuple(map(tuple, self.model.hotword_list))
        if words not in self.embedded:
            self.embedded[words] = {"bias_embed": embed(words, self.bias_encoder)[None]}
        return self.embedded[words]


def embed(words: Words, network: Network) -> NDArray[np.generic]:
    """Return each word's embedding, float32 (words, inner_dim): after its last token, as the runtime takes it."""
    padded = np.zeros((len(words), HOTWORD_TOKENS), np.int32)
    for row, word in zip(padded, words, strict=True):
        row[: len(word)] = word[:HOTWORD_TOKENS]
    last = [min(len(word), HOTWORD_TOKENS) - 1 for word in words]
    embedded: NDArray[np.generic] = network({"hotword": padded})["hw_embed"][last, np.arange(len(words))]
    return embedded


def score(folder: Path, artifact: LoadedArtifact, mode: str, recordings: Iterable[Recording]) -> list[Outcome]:
    """Run FunASR's recognizer over the recordings, each with its list, with the artifact's networks in their places.

    mode: one of `LISTED`.
    """
    transcribe = load_recognizer(folder, artifact)
    return [transcribe(r.samples(), hotword=" ".join(hotwords(r)[: LISTED[mode]])) for r in recordings]


def load_recognizer(folder: Path, artifact: LoadedArtifact) -> Callable[..., Outcome]:
    """Load FunASR's recognizer as a function of audio float32 (samples,) and, with spaces between them, `hotword`s."""
    config = read_config(folder)
    model = checkpoint.described(build, config, folder)
    return transcriber(folder, config, model, HotwordSwap(model, artifact[1]))
