"""Speech from espeak-ng, the formant synthesizer that the `espeakng-loader` wheel carries.

espeak-ng is GPL-3.0-or-later; it is only run, and what it says is not covered by its licence.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import espeakng_loader
import numpy as np
from numpy.typing import NDArray

from stages.core.errors import UserError
from stages.corpora.manifest import SAMPLE_RATE
from stages.corpora.resampling import resample

# From espeak-ng's speak_lib.h.
_SYNCHRONOUS = 2
_DONT_EXIT = 0x8000
_UTF8 = 1
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def speak(
    text: str,
    voice: str,
    variant: str = "",
    *,
    rate: int = 175,
    pitch: int = 50,
    pitch_range: int = 50,
    volume: int = 50,
) -> NDArray[np.float64]:
    """Synthesize `text` as float64 (samples,) in [-1, 1] at 16 kHz: the same samples each time.

    Args:
        text: what to say, in the voice's language.
        voice: espeak-ng's language name, such as `cmn` or `en-us`.
        variant: the speaker, one of `variants()`, such as `f1`; empty is the plain voice.
        rate: words per minute, 80 to 450.
        pitch: base pitch, 0 to 99.
        pitch_range: 0 (monotone) to 99.
        volume: 0 to 200; half of the variants clip at 100.

    Raises:
        UserError: espeak-ng does not have the voice or the variant, or said nothing.
    """
    if variant and variant not in variants():
        raise UserError(f"espeak-ng: no voice variant {variant!r}; it has {', '.join(variants())}")
    pieces: list[NDArray[np.int16]] = []
    with _espeak(pieces) as (library, frequency):
        if library.espeak_SetVoiceByName((f"{voice}+{variant}" if variant else voice).encode()) != 0:
            raise UserError(f"espeak-ng: no voice {voice!r}; wanted a language that it has, such as cmn or en-us")
        for parameter, value in ((_RATE, rate), (_VOLUME, volume), (_PITCH, pitch), (_RANGE, pitch_range)):
            library.espeak_SetParameter(parameter, value, 0)
        data = text.encode()
        library.espeak_Synth(data, ctypes.c_size_t(len(data) + 1), 0, 0, 0, _UTF8, None, None)
    if not any(piece.any() for piece in pieces):
        raise UserError(f"espeak-ng: the voice {voice} said nothing for {text!r}")
    return resample(np.concatenate(pieces) / 32768, SAMPLE_RATE, frequency).clip(-1, 1)


def trim(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cut off the near silence, 40 dB under the peak, that espeak-ng puts before and after speech."""
    loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max())
    return samples[loud[0] : loud[-1] + 1]


@functools.cache
def variants() -> tuple[str, ...]:
    """List the speakers that every language can be spoken by, in the order of their names."""
    return tuple(sorted(path.name for path in (Path(espeakng_loader.get_data_path()) / "voices/!v").iterdir()))


@contextmanager
def _espeak(pieces: list[NDArray[np.int16]]) -> Iterator[tuple[ctypes.CDLL, int]]:
    """Load espeak-ng afresh and yield it with its sample rate in Hz; its output is appended to `pieces`.

    Its phase of pitch flutter, filters and noise live in static variables that nothing resets, so the
    library is unloaded after each use (8 ms): otherwise samples depend on what was spoken before.
    """

    def collect(samples: ctypes._Pointer[ctypes.c_short], count: int, _events: int | None) -> int:
        if samples:
            pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    callback = _CALLBACK(collect)  # named, so that it lives as long as espeak-ng may call it
    system = ctypes.CDLL(None)
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    try:
        home = str(Path(espeakng_loader.get_data_path()).parent)
        frequency = library.espeak_Initialize(_SYNCHRONOUS, 0, home.encode(), _DONT_EXIT)
        if frequency <= 0:
            raise UserError(f"espeak-ng cannot start with the data in {home}; install requirements.txt again")
        library.espeak_SetSynthCallback(callback)
        library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # its own noise, seeded with the time,
        system.srand(1)  # and that of its Klatt voices
        yield library, frequency
        library.espeak_Terminate()
    finally:
        system.dlclose(ctypes.c_void_p(library._handle))  # noqa: SLF001 - ctypes has no public way to unload
