"""Voice emotion and text emotion, fused: a weighted sum of two classifiers' probabilities, with weights per label.

The voice is heard by an emotion2vec artifact of the build. The text is read by a logistic regression on character
n-grams that learns here, from sentences that are never spoken. Both are judged on utterances whose emotion is known
because they are made here: a sentence, spoken by espeak-ng in the manner of its label. A real chain has a recognizer's
text; here it is the sentence itself.

    python -m examples.fusion.fuse
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from stages.core import graphs
from stages.core.errors import UserError, entrypoint, refuse_arguments
from stages.core.params import wording, yaml_text
from stages.core.params.section import Section, Seed
from stages.core.parity import LoadedArtifact
from stages.core.statistics import Groups, Metric, binomial_bounds, drift
from stages.corpora import emotional_prosody, voices
from stages.models import emotion2vec
from stages.runtimes import onnxruntime

PARAMS = Path(__file__).with_name("params.yaml")
ACCURACY = Metric(higher_is_better=True)

# What happens, by label and language, and where: each pair is a sentence after emotional_prosody's openings.
PLACES = {
    "cmn": ("在学校", "在家里", "在车上", "在公司"),
    "en-us": ("at school", "at home", "on the train", "at the office"),
}
EVENTS = {
    "angry": {
        "cmn": ("被人骗了", "又被骂了", "被大家无视了"),
        "en-us": ("been cheated", "been insulted", "been ignored again"),
    },
    "disgusted": {
        "cmn": ("闻到了臭味", "看见了蟑螂", "吃到了发霉的面包"),
        "en-us": ("smelled rotten fish", "seen a cockroach", "eaten mouldy bread"),
    },
    "fearful": {
        "cmn": ("听见了尖叫", "被人跟踪了", "看见了黑影"),
        "en-us": ("heard a scream", "been followed", "seen a dark shadow"),
    },
    "happy": {
        "cmn": ("得了大奖", "受到了表扬", "收到了好消息"),
        "en-us": ("won a prize", "been praised", "had good news"),
    },
    "neutral": {
        "cmn": ("关上了门", "买了面包", "写了一封信"),
        "en-us": ("closed the door", "bought some bread", "read a letter"),
    },
    "sad": {
        "cmn": ("失去了朋友", "被人抛弃了", "独自哭了"),
        "en-us": ("lost a friend", "been left alone", "cried for hours"),
    },
    "surprised": {
        "cmn": ("突然遇见了老同学", "意外发现了宝藏", "忽然看见了大象"),
        "en-us": ("suddenly met an old classmate", "discovered a treasure", "come upon an elephant"),
    },
}
LABELS = tuple(EVENTS)  # of which a text can tell; emotion2vec has `other` and `unknown` beside them
PLAIN = "neutral"  # whose sentences are also said in every other manner

Floats = NDArray[np.float64]


class Weights(Section):
    """What a label's two probabilities are multiplied with."""

    voice: float = Field(ge=0)
    text: float = Field(ge=0)


class Params(Section):
    """All of params.yaml."""

    checkpoint: Path
    artifact: Path
    weights: dict[str, Weights]
    plain: float = Field(ge=0, le=1)
    sentences: int = Field(ge=1)
    utterances: int = Field(ge=2)
    seed: Seed
    resamples: int = Field(ge=100)
    confidence: Annotated[float, Field(gt=0.5, lt=1)]


class Utterance(NamedTuple):
    """What is said, how, and by whom: float32 (samples,)."""

    label: str
    text: str
    speaker: str
    samples: NDArray[np.float32]


def read_params(path: Path = PARAMS) -> Params:
    """Parse params.yaml.

    Raises:
        UserError: a key is unknown or missing, or a value is not what it should be.
    """
    raw = yaml_text.parse(yaml_text.read(path), str(path))
    try:
        return Params.model_validate(raw)
    except ValidationError as e:
        lines = [wording.explain(error, raw, Params.model_json_schema()) for error in e.errors()]
        raise UserError("\n  ".join([f"{path}:", *lines])) from e


def endings(label: str, *, evaluation: bool) -> dict[str, list[str]]:
    """List the ends of a label's sentences by language: every third pair of event and place is for evaluation."""
    found = {}
    for language, places in PLACES.items():
        events = EVENTS[label][language]
        pairs = [
            (event, place)
            for (i, event), (j, place) in itertools.product(enumerate(events), enumerate(places))
            if ((i + j) % 3 == 0) is evaluation
        ]
        found[language] = [place + event if language == "cmn" else f"{event} {place}" for event, place in pairs]
    return found


def topic(label: str, plain: float, rng: np.random.Generator) -> str:
    """Draw whether a sentence tells its label, or is a plain one."""
    return PLAIN if rng.random() < plain else label


def write_sentences(p: Params) -> Iterator[tuple[str, str]]:
    """Yield labels, and sentences for the text classifier to learn from."""
    rng = np.random.default_rng([p.seed, 0])
    for number in range(p.sentences):
        label = LABELS[number % len(LABELS)]
        by_language = endings(topic(label, p.plain, rng), evaluation=False)
        yield label, str(rng.choice(by_language[str(rng.choice(list(by_language)))]))


def speak_utterances(p: Params) -> Iterator[Utterance]:
    """Yield utterances to judge by, in turn over labels, with voices that emotion2vec was not trained on."""
    quiet = [voices.Condition("clean", "white", (40, 50))]
    speakers = emotional_prosody.SPEAKERS["evaluation"]
    for number, take in enumerate(voices.takes(speakers, quiet, p.utterances, [p.seed, 1])):
        label = LABELS[number % len(LABELS)]
        said = endings(topic(label, p.plain, take.rng), evaluation=True)
        text, clean = emotional_prosody.synthesize(label, take.voice.speak, said, take.rng)
        samples = emotional_prosody.act(label, clean, take.rng).astype(np.float32)
        yield Utterance(label, text, take.voice.name, samples)


def hear(p: Params, artifact: LoadedArtifact, utterances: Sequence[Utterance]) -> Floats:
    """Compute the voice's probabilities (utterances, emotion2vec's labels)."""
    classify = emotion2vec.load_classifier(p.checkpoint, artifact)
    return np.array([classify(utterance.samples).scores for utterance in utterances], float)


def read(p: Params, labels: Sequence[str], texts: Sequence[str]) -> Floats:
    """Learn to read, and compute the texts' probabilities (texts, labels): 0 of a label of which no text tells."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    known, sentences = zip(*write_sentences(p), strict=True)
    classifier = make_pipeline(
        TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4)), LogisticRegression(max_iter=1000)
    )
    classifier.fit(sentences, known)
    found = np.zeros((len(texts), len(labels)))
    found[:, [labels.index(label) for label in classifier.classes_]] = classifier.predict_proba(texts)
    return found


def fuse(voice: Floats, text: Floats, weights: Mapping[str, Weights], labels: Sequence[str]) -> Floats:
    """Add up probabilities (utterances, labels), each times its label's weight.

    Raises:
        UserError: a label has no weights, or there are weights of none.
    """
    if set(weights) != set(labels):
        raise UserError(f"weights: found {sorted(weights)}, wanted those of emotion2vec's labels, {sorted(labels)}")
    by_voice, by_text = (np.array([getattr(weights[label], of) for label in labels]) for of in ("voice", "text"))
    return by_voice * voice + by_text * text


def judge(
    p: Params, labels: Sequence[str], utterances: Sequence[Utterance], scores: Mapping[str, Floats]
) -> dict[str, Any]:
    """Measure how often each of `scores` is right, and how much more often the fused are, with intervals."""
    truths = np.array([labels.index(utterance.label) for utterance in utterances])
    right = {name: (values.argmax(axis=1) == truths).astype(float) for name, values in scores.items()}
    counts = {name: [{"accuracy": (one, 1.0)} for one in of_name] for name, of_name in right.items()}
    speakers = [utterance.speaker for utterance in utterances]
    groups = Groups(clusters=speakers, speakers=speakers, conditions=[""] * len(speakers))
    bootstrap = p.model_dump(include={"resamples", "confidence", "seed"})
    return {
        name: {
            "accuracy": of_name.mean(),
            "ci": binomial_bounds(int(of_name.sum()), len(of_name), p.confidence),
            "fused": drift(ACCURACY, "accuracy", counts[name], counts["fused"], groups, **bootstrap),
        }
        for name, of_name in right.items()
    }


def evaluate(p: Params, artifact: LoadedArtifact) -> dict[str, Any]:
    """Speak, hear, read, fuse and judge."""
    labels = emotion2vec.labels(p.checkpoint)
    utterances = list(speak_utterances(p))
    voice = hear(p, artifact, utterances)
    text = read(p, labels, [utterance.text for utterance in utterances])
    fused = fuse(voice, text, p.weights, labels)
    return judge(p, labels, utterances, {"voice": voice, "text": text, "fused": fused})


def main(argv: Sequence[str]) -> None:
    """Run `python -m examples.fusion.fuse`."""
    refuse_arguments(argv, "fuse")
    p = read_params()
    graph_set = graphs.read(p.artifact)
    for name, found in evaluate(p, (graph_set, onnxruntime.load(p.artifact, graph_set))).items():
        (low, high), gain = found["ci"], found["fused"]
        line = f"{name:6} right {found['accuracy']:.3f} [{low:.3f}, {high:.3f}]"
        more = f"; fused {gain['drift']:+.3f} [{gain['ci'][0]:+.3f}, {gain['ci'][1]:+.3f}]"
        print(line + (more if name != "fused" else ""))


if __name__ == "__main__":
    entrypoint(main)
