"""Which model families there are, and what each can do: known without importing one, which takes seconds.

`load` imports a family; `PRUNABLE` and the roles in a pipeline give what not every family has. Each folder here
but `shared` is a family. mypy holds it to the protocols of `stages.models.protocols` where it stands in these tables.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from stages.core.errors import UserError
from stages.models.protocols import (
    Classifier,
    Described,
    Detector,
    Embedder,
    Family,
    Prunable,
    Punctuator,
    Recognizer,
    Searchable,
    Splittable,
    Streamed,
    StreamingRecognizer,
)

if TYPE_CHECKING:  # at run time, each becomes a name of this package when `Kind.load` has imported it
    from stages.models import (  # noqa: TC004
        campplus,
        ct_transformer,
        emotion2vec,
        fsmn_vad,
        paraformer,
        paraformer_streaming,
        seaco_paraformer,
        sensevoice,
    )

F = TypeVar("F")


class Kind(Collection[str], Generic[F]):
    """Families that can do the same. What they are called is known at once; a module is imported when it is loaded."""

    def __init__(self, modules: Mapping[str, Callable[[], F]]) -> None:
        """Take the families' names, and functions that give the module of each once it is imported."""
        self._modules = modules

    def __iter__(self) -> Iterator[str]:
        """Iterate over the families' names."""
        return iter(self._modules)

    def __len__(self) -> int:
        """Count them."""
        return len(self._modules)

    def __contains__(self, name: object) -> bool:
        """Tell whether a family can do this."""
        return name in self._modules

    def load(self, name: str) -> F:
        """Import a family.

        Raises:
            UserError: it cannot do this.
        """
        if name not in self._modules:
            raise UserError(f"found the family {name}, wanted one of {', '.join(self)}")
        importlib.import_module(f"{__name__}.{name}")
        return self._modules[name]()


FAMILIES = Kind[Family[Any]](
    {
        "campplus": lambda: campplus,
        "ct_transformer": lambda: ct_transformer,
        "emotion2vec": lambda: emotion2vec,
        "fsmn_vad": lambda: fsmn_vad,
        "paraformer": lambda: paraformer,
        "paraformer_streaming": lambda: paraformer_streaming,
        "seaco_paraformer": lambda: seaco_paraformer,
        "sensevoice": lambda: sensevoice,
    }
)
PRUNABLE = Kind[Prunable[Any, Any]](
    {
        "campplus": lambda: campplus,
        "ct_transformer": lambda: ct_transformer,
        "emotion2vec": lambda: emotion2vec,
        "fsmn_vad": lambda: fsmn_vad,
        "paraformer": lambda: paraformer,
        "paraformer_streaming": lambda: paraformer_streaming,
        "seaco_paraformer": lambda: seaco_paraformer,
        "sensevoice": lambda: sensevoice,
    }
)
DESCRIBED = Kind[Described](
    {
        "campplus": lambda: campplus,
        "ct_transformer": lambda: ct_transformer,
        "paraformer": lambda: paraformer,
        "paraformer_streaming": lambda: paraformer_streaming,
        "sensevoice": lambda: sensevoice,
    }
)
DETECTORS = Kind[Detector]({"fsmn_vad": lambda: fsmn_vad})
RECOGNIZERS = Kind[Recognizer](
    {
        "paraformer": lambda: paraformer,
        "seaco_paraformer": lambda: seaco_paraformer,
        "sensevoice": lambda: sensevoice,
    }
)
SEARCHABLE = Kind[Searchable]({"paraformer": lambda: paraformer, "sensevoice": lambda: sensevoice})
STREAMING_RECOGNIZERS = Kind[StreamingRecognizer]({"paraformer_streaming": lambda: paraformer_streaming})
PUNCTUATORS = Kind[Punctuator]({"ct_transformer": lambda: ct_transformer})
CLASSIFIERS = Kind[Classifier]({"emotion2vec": lambda: emotion2vec})
STREAMED = Kind[Streamed]({"fsmn_vad": lambda: fsmn_vad, "paraformer_streaming": lambda: paraformer_streaming})
HOTWORD_RECOGNIZERS = Kind[Recognizer]({"seaco_paraformer": lambda: seaco_paraformer})
EMBEDDERS = Kind[Embedder]({"campplus": lambda: campplus})
SPLITTABLE = Kind[Splittable]({"paraformer": lambda: paraformer, "sensevoice": lambda: sensevoice})
REFUSED = {  # what no family takes of FunASR's Paraformers, and why
    "ContextualParaformer": "its way with hotwords has no graph here, and SeACo-Paraformer has hotwords too: "
    "use seaco_paraformer_large",
    "EParaformer": "its predictor (PIF) has no graph here: use paraformer_large",
    "Paraformer_v2_community": "it finds tokens by CTC, and FunASR has no export of it: use paraformer_large",
}
ROLES: dict[str, Kind[Any]] = {  # the parts of a pipeline, and the families that can take each
    "vad": DETECTORS,
    "asr": RECOGNIZERS,
    "streaming": STREAMING_RECOGNIZERS,
    "punctuation": PUNCTUATORS,
}
DECODERS: dict[str, Kind[Any]] = {  # and those whose tokens each can choose
    "greedy": RECOGNIZERS,
    "prefix_beam": Kind[Searchable]({"sensevoice": lambda: sensevoice}),  # by CTC
    "wfst": SEARCHABLE,
}


def load(name: str) -> Family[Any]:
    """Import a family by the name that a checkpoint has for it in params.yaml.

    Raises:
        UserError: there is none of that name.
    """
    return FAMILIES.load(name)


def metadata(name: str, checkpoint: Path) -> Mapping[str, Mapping[str, str]]:
    """Return what sherpa-onnx reads in the file of each graph that a family makes of a checkpoint."""
    return DESCRIBED.load(name).metadata(checkpoint) if name in DESCRIBED else {}


def find(model: str) -> str | None:
    """Return the family of what config.yaml calls its `model`, or None; imports families until one has it."""
    return next((name for name in FAMILIES if model in load(name).SCHEMAS), None)


def refuse(model: object, place: Path) -> None:
    """Raise UserError if config.yaml, at `place`, is of a model that is known and not built here, with the reason."""
    if isinstance(model, str) and model in REFUSED:
        raise UserError(f"{place} model: found {model}, which cannot be built: {REFUSED[model]} of the catalogue")
