"""Heart beats in an ECG, and statistics of the intervals between them."""

import numpy as np
from scipy.signal import butter, find_peaks, sosfiltfilt

#: Hz. Most of a QRS complex lies in this band (Pan and Tompkins, 1985).
BAND = (5.0, 15.0)
#: Seconds over which the slope is averaged: about the width of a QRS complex.
WIDTH = 0.12
#: Seconds. No heart beats twice within this time.
REFRACTORY = 0.25
#: Share of a tall beat (the 95th percentile of the peaks) that a beat must reach.
THRESHOLD = 0.25
#: Seconds of the bins of intervals in the histogram.
BINS = np.array([0.25, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 3.0])
STATISTICS = 15 + len(BINS) - 1


def find_beats(ecg: np.ndarray, rate: float) -> np.ndarray:
    """Return the places of R peaks, (beats,) int64, in one lead, (steps,), of ``rate`` Hz."""
    band = butter(2, BAND, "bandpass", fs=rate, output="sos")
    complexes = sosfiltfilt(band, ecg, padlen=min(len(ecg) - 1, int(rate)))
    width = max(1, round(WIDTH * rate))
    power = np.convolve(np.gradient(complexes) ** 2, np.ones(width) / width, mode="same")
    energy = np.sqrt(np.maximum(power, 0))
    peaks, _ = find_peaks(energy, distance=max(1, round(REFRACTORY * rate)))
    if not len(peaks):
        return peaks
    beats = peaks[energy[peaks] >= THRESHOLD * np.quantile(energy[peaks], 0.95)]
    # The average over the width of a complex is flat at its top: the peak itself is sharper.
    around = np.arange(-(width // 2), width // 2 + 1)
    windows = (beats[:, None] + around).clip(0, len(ecg) - 1)
    return windows[np.arange(len(beats)), np.abs(complexes[windows]).argmax(axis=1)]


def describe(ecg: np.ndarray, rate: float) -> np.ndarray:
    """Return statistics of heart rate and peaks, (steps,) to (STATISTICS,).

    Where there are fewer than four beats, all of them are -1, which no statistic is otherwise.
    """
    beats = find_beats(ecg, rate)
    heights = np.abs(ecg[beats] - np.median(ecg))
    intervals = np.diff(beats) / rate
    if len(intervals) < 3:
        return np.full(STATISTICS, -1.0)
    changes = np.diff(intervals)
    quartiles = np.quantile(intervals, [0.25, 0.5, 0.75])
    rest = np.median(np.abs(ecg - np.median(ecg)))
    return np.array([
        len(beats) * rate / len(ecg), intervals.mean(), intervals.std(), *quartiles,
        intervals.min(), intervals.max(), intervals.std() / intervals.mean(),
        np.sqrt((changes**2).mean()), (np.abs(changes) > 0.05).mean(),
        np.median(np.abs(changes)), np.abs(np.diff(changes)).mean(),
        heights.std() / max(heights.mean(), 1e-9), np.median(heights) / max(rest, 1e-9),
        *np.histogram(intervals, BINS)[0] / len(intervals),
    ])  # fmt: skip
