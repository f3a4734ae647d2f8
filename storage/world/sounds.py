"""The sounds of the demo's world: seven that a small model can learn to tell apart.

Each is computed with a pitch, tempo and loudness of its own, so that no two clips are alike and a
held-out clip is a new sound.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
Task = Literal["sound", "music", "speech"]

SAMPLE_RATE_HZ = 16_000

# Steady noise under every sound, as a fraction of full scale: the louder, the harder to hear.
NOISE_BY_DIFFICULTY = {"easy": 0.002, "medium": 0.005, "hard": 0.012}

# First and second formant of vowels of a grown man (Peterson and Barney 1952), Hz.
VOWELS_HZ = ((270, 2290), (390, 1990), (660, 1720), (730, 1090), (570, 840), (300, 870))


def make_sound(name: str, *, num_samples: int, noise: float, rng: np.random.Generator) -> Samples:
    """One clip of a sound.

    Args:
        name: One of `SOUNDS`.
        num_samples: Length at 16 kHz.
        noise: Standard deviation of the noise underneath, as a fraction of full scale.
        rng: Decides pitch, tempo and loudness.

    Returns:
        Mono samples in -1..1, float32.
    """
    _, draw = SOUNDS[name]
    wave = draw(np.arange(num_samples) / SAMPLE_RATE_HZ, rng)
    loudness = rng.uniform(0.25, 0.6)
    wave = loudness * wave / np.abs(wave).max() + noise * rng.standard_normal(num_samples)
    return wave.clip(-1, 1).astype(np.float32)


def _rain(time_s: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    gusts = 1 + 0.4 * np.sin(2 * np.pi * (rng.uniform(0.3, 1.5) * time_s + rng.uniform()))
    return gusts * rng.standard_normal(len(time_s))


def _clock(time_s: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    since_tick_s = (time_s + rng.uniform()) % rng.uniform(0.15, 0.3)
    return np.exp(-since_tick_s / 0.003) * rng.standard_normal(len(time_s))


def _siren(time_s: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    sweep = np.sin(2 * np.pi * (rng.uniform(1.0, 3.0) * time_s + rng.uniform()))
    frequency_hz = rng.uniform(700, 1500) * (1 + 0.35 * sweep)
    return np.sin(_phase(frequency_hz))


def _bells(time_s: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    stroke_s = rng.uniform(0.3, 0.5)
    stroke_index = (time_s / stroke_s).astype(int)
    pitches_hz = rng.uniform(1000, 1800) * rng.choice((1.0, 9 / 8, 5 / 4, 3 / 2), size=8)
    phase = _phase(pitches_hz[stroke_index % 8])
    # Partials of a church bell, as ratios to the strike note.
    wave = sum(np.sin(ratio * phase) / ratio**0.5 for ratio in (1.0, 2.0, 2.5, 3.0, 4.0))
    return np.exp(-(time_s % stroke_s) / 0.15) * wave


def _organ(time_s: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    root_hz = rng.uniform(150, 300)
    chord = rng.choice(((4, 5, 6), (10, 12, 15)))  # major, minor, in just intonation
    wave = np.zeros(len(time_s))
    for ratio in chord / chord[0]:
        for harmonic in (1, 2, 4):
            phase = 2 * np.pi * (root_hz * ratio * harmonic * time_s + rng.uniform())
            wave += np.sin(phase) / harmonic**0.5
    return wave


def _man(time_s: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    return _voice(time_s, rng, pitch_hz=rng.uniform(80, 125), formant_scale=1.0)


def _baby(time_s: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    return _voice(time_s, rng, pitch_hz=rng.uniform(450, 650), formant_scale=1.6)  # it cries


def _voice(
    time_s: NDArray[np.float64], rng: np.random.Generator, *, pitch_hz: float, formant_scale: float
) -> NDArray[np.float64]:
    """Syllables of a vowel each: harmonics of the pitch, loud near the vowel's formants."""
    syllable_s = rng.uniform(0.18, 0.3)
    syllable_index = (time_s / syllable_s).astype(int)
    vowels_hz = formant_scale * rng.choice(VOWELS_HZ, size=syllable_index[-1] + 1)
    phase = _phase(pitch_hz * (1 + 0.06 * np.sin(2 * np.pi * rng.uniform(0.5, 2) * time_s)))
    wave = np.zeros(len(time_s))
    for harmonic in range(1, int(3500 / pitch_hz) + 1):
        distance = (harmonic * pitch_hz - vowels_hz) / (120 * formant_scale)
        loudness = (1 / (1 + distance**2)).sum(axis=1) / harmonic**0.3
        wave += loudness[syllable_index] * np.sin(harmonic * phase)
    return wave * np.sin(np.pi * (time_s % syllable_s) / syllable_s)


def _phase(frequency_hz: NDArray[np.float64]) -> NDArray[np.float64]:
    return 2 * np.pi * np.cumsum(frequency_hz) / SAMPLE_RATE_HZ


Draw = Callable[[NDArray[np.float64], np.random.Generator], NDArray[np.float64]]

# What a sound is called in questions: where it belongs, and how it is made.
SOUNDS: dict[str, tuple[Task, Draw]] = {
    "rain": ("sound", _rain),
    "clock": ("sound", _clock),
    "siren": ("sound", _siren),
    "bells": ("music", _bells),
    "organ": ("music", _organ),
    "man": ("speech", _man),
    "baby": ("speech", _baby),
}
