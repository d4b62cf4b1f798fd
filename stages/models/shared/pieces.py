"""The SentencePiece model beside a checkpoint: its pieces are the network's tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stages.core.errors import UserError, from_library
from stages.models.shared import tokens
from stages.models.shared.checkpoint import importing_funasr
from stages.models.shared.weights import refuse_stand_in

if TYPE_CHECKING:
    from funasr.tokenizer.sentencepiece_tokenizer import SentencepiecesTokenizer

FILE = "chn_jpn_yue_eng_ko_spectok.bpe.model"  # as the hub's SenseVoiceSmall has it


def load(folder: Path) -> SentencepiecesTokenizer:
    """Load FunASR's tokenizer with the checkpoint's SentencePiece model.

    Raises:
        UserError: it is missing, or is something else.
    """
    path = folder / FILE
    if not path.is_file():
        raise UserError(f"{folder}: found no {FILE}; add the checkpoint's own SentencePiece model")
    refuse_stand_in(path)
    with importing_funasr():
        from funasr.tokenizer.sentencepiece_tokenizer import SentencepiecesTokenizer
    with from_library(f"{path} is not a SentencePiece model"):
        return SentencepiecesTokenizer(bpemodel=path)


def read(folder: Path, vocabulary: int | None = None) -> list[str]:
    """Read the pieces of a checkpoint, in the order of the network's outputs.

    vocabulary: how many there must be, where config.yaml says so.

    Raises:
        UserError: the model is missing, has another number of pieces, or tokens.json, where there is one, lists others.
    """
    model = load(folder).sp
    pieces = [model.IdToPiece(i) for i in range(model.GetPieceSize())]
    if vocabulary not in {None, len(pieces)}:
        raise UserError(f"{folder / FILE}: found {len(pieces)} pieces, the vocab_size of config.yaml is {vocabulary}")
    listed = tokens.read(folder) if (folder / tokens.FILE).is_file() else pieces
    if listed != pieces:
        at = next((i for i, pair in enumerate(zip(listed, pieces, strict=False)) if pair[0] != pair[1]), -1)
        raise UserError(f"{folder}: tokens.json differs from {FILE} at token {at}; wanted the checkpoint's own of both")
    return pieces
