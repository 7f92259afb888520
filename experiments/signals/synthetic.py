"""Made-up pulse trains: a stand-in for ECG that is learnt within seconds.

As in the challenge of 2017, there are four classes: beats at regular times, beats at irregular
times, regular beats with early ones among them, and noise that buries the beats.
"""

import numpy as np

from experiments.datasets.recordings import Description, Recordings, join

RATE = 50.0
LENGTHS = (400, 1200)
CLASS_NAMES = ("regular", "irregular", "early beats", "noisy")
REGULAR, IRREGULAR, EARLY, NOISY = range(4)
#: Seconds between two beats, at the lowest and at the highest.
INTERVALS = (0.6, 1.0)
#: Seconds: the width of a beat, and that of an early one.
WIDTH, WIDE = 0.04, 0.12
#: Deviation of the noise, where a beat is 1 high.
NOISE, MUCH_NOISE = 0.08, 0.8


def make_recordings(per_class: int, seed: int = 0) -> Recordings:
    """Make ``per_class`` recordings of each class, of 400 to 1200 steps, one after another."""
    generator = np.random.default_rng(seed)
    labels = np.tile(np.arange(len(CLASS_NAMES)), per_class)
    lengths = generator.integers(LENGTHS[0], LENGTHS[1] + 1, len(labels))
    frames = [_draw(*pair, generator)[:, None] for pair in zip(labels, lengths, strict=True)]
    about = Description(
        data_set="synthetic pulses",
        kind="signal",
        class_names=CLASS_NAMES,
        frame_rate=RATE,
        source=f"experiments/signals/synthetic.py, seed {seed}",
        joint_names=("pulses",),
    )
    names = [f"pulses{number:05d}" for number in range(len(labels))]
    return join(about, frames, labels, np.arange(len(labels)), names, {})


def _draw(label: int, length: int, generator: np.random.Generator) -> np.ndarray:
    """Draw a recording of a class, (length,)."""
    seconds = np.arange(length) / RATE
    usual = generator.uniform(*INTERVALS)
    count = int(seconds[-1] / usual * 2) + 2
    spread = 0.35 if label == IRREGULAR else 0.02
    intervals = usual * (1 + spread * generator.uniform(-1, 1, count))
    early = np.zeros(count, bool)
    if label == EARLY:
        early[generator.integers(4) :: 4] = True
    # A beat that comes early is followed by a pause.
    intervals[early] *= 0.6
    intervals[1:][early[:-1]] *= 1.4
    beats = np.cumsum(intervals) - generator.uniform(0, usual)
    widths = np.where(early, WIDE, WIDTH)
    pulses = np.exp(-0.5 * ((seconds[:, None] - beats) / widths) ** 2).sum(axis=1)
    noise = MUCH_NOISE if label == NOISY else NOISE
    return pulses + generator.normal(0, noise, length)
