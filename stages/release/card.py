"""README.md: the model card, with the front matter that model hubs read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from stages.core.params import Model
from stages.core.params.section import OWN_FILES
from stages.release import contents, signature, statement
from stages.release.facts import Facts
from stages.report import md_text, number, render

TASKS = {  # as hubs name them, by family
    "campplus": "speaker-verification",
    "ct_transformer": "token-classification",
    "emotion2vec": "audio-classification",
    "fsmn_vad": "voice-activity-detection",
    "paraformer": "automatic-speech-recognition",
    "paraformer_streaming": "automatic-speech-recognition",
    "seaco_paraformer": "automatic-speech-recognition",
    "sensevoice": "automatic-speech-recognition",
}
FENCE = "---"


def read_license(checkpoint: Path, model: Model) -> tuple[str, str]:
    """Return a checkpoint's licence, and where it was read: in its own model card, or else in params.yaml."""
    stated = _front_matter(checkpoint / contents.README).get("license")
    if isinstance(stated, str) and stated.strip():
        return " ".join(stated.split()), f"the checkpoint's {contents.README}"
    return model.license, "params.yaml"


def _front_matter(place: Path) -> dict[str, Any]:
    """Read what a model card says between its first two fences; nothing where it cannot be read."""
    try:
        text = place.read_text(encoding="utf-8")
        found = yaml.safe_load(text.split(f"{FENCE}\n")[1]) if text.startswith(f"{FENCE}\n") else {}
    except (OSError, ValueError, IndexError, yaml.YAMLError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def front_matter(facts: Facts) -> str:
    """Return what hubs read, in YAML."""
    task = {"type": TASKS[facts.model.family]}
    data = {"type": facts.model.dataset, "name": facts.model.dataset}
    metrics = [
        {"type": name, "value": m["value"], "name": name}
        for name, m in facts.entry["accuracy"].items()
        if m["value"] is not None and m["verdict"]
    ]
    matter = {
        "license": facts.license.lower(),
        "library_name": facts.target.runtime.removesuffix("_bf16") if facts.target.runtime in OWN_FILES else "onnx",
        "pipeline_tag": task["type"],
        "tags": ["funasr", facts.model.family, facts.target.variant, facts.precision],
        "model-index": [
            {"name": facts.build, "results": [{"task": task, "dataset": data, "metrics": metrics}] if metrics else []}
        ],
    }
    return str(yaml.safe_dump(matter, sort_keys=False, allow_unicode=True))


def render_card(facts: Facts, *, signed: bool) -> str:
    """Return the model card in Markdown."""
    return render(
        "card.md",
        front_matter=front_matter(facts),
        facts=facts,
        entry=facts.entry,
        source=statement.source(facts),
        worst=_worst(facts),
        signature=signature.FILE if signed else None,
    )


def _worst(facts: Facts) -> list[str]:
    """Describe the worst group of recordings of each gated metric, in Markdown."""
    gated = [(name, m) for name, m in facts.entry["accuracy"].items() if m["verdict"]]
    return [
        f"`{name}`: {kind} {md_text(group['name'])} loses {number(group['loss'])}"
        for name, m in gated
        for kind, group in m.get("worst", {}).items()
        if group
    ]
