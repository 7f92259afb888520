"""Small files in the formats of the signals' data sets, and signals that are easy to tell apart."""

import io
import struct
import wave

import numpy as np


def waves(label, length, generator):
    """(length,): a wave, faster for each class, under a little noise."""
    phase = generator.uniform(0, 2 * np.pi)
    wave_of = np.sin(np.arange(length) * 0.15 * (1 + label) + phase)
    return wave_of + generator.normal(0, 0.1, length)


# --- CinC 2017 ----------------------------------------------------------------------------------


def mat_bytes(samples):
    """MATLAB 4: a row of int16 with the name val."""
    return (
        struct.pack("<5i4s", 30, 1, len(samples), 0, 4, b"val\0") + samples.astype("<i2").tobytes()
    )


def write_cinc(folder, letters="NAO~" * 10, seed=0):
    """A recording of each letter, of 40 to 90 samples; returns the samples by name."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    written = {}
    for number, letter in enumerate(letters, 1):
        name, length = f"A{number:05d}", int(generator.integers(40, 91))
        samples = (300 * waves("NAO~".index(letter), length, generator)).astype(np.int16)
        (folder / f"{name}.mat").write_bytes(mat_bytes(samples))
        written[name] = samples
    rows = [f"{name},{letter}" for name, letter in zip(written, letters, strict=True)]
    (folder / "REFERENCE.csv").write_text("\n".join(rows) + "\n")
    return written


# --- spoken digits ------------------------------------------------------------------------------


def wav_bytes(samples, rate=8000, channels=1, width=2):
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(width)
        writer.setframerate(rate)
        writer.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()


def write_fsdd(folder, speakers=("george", "lucas", "theo"), digits=3, indices=9, seed=0):
    """Recordings of 40 to 90 samples; returns the samples by name."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    written = {}
    for digit in range(digits):
        for speaker in speakers:
            for index in range(indices):
                name, length = f"{digit}_{speaker}_{index}", int(generator.integers(40, 91))
                samples = (9000 * waves(digit, length, generator)).astype(np.int16)
                (folder / f"{name}.wav").write_bytes(wav_bytes(samples))
                written[name] = samples
    return written


# --- a folder of one's own ----------------------------------------------------------------------


def write_own(folder, recordings=24, classes=("calm", "fast"), people=None, seed=0):
    """CSV and NPY files in turn, with two channels; ``people`` groups of recordings, if given."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    rows = ["name,label" if people is None else "name,label,group"]
    for number in range(recordings):
        label = number % len(classes)
        length = int(generator.integers(30, 60))
        channels = np.stack([waves(3 * label, length, generator) for _ in range(2)], 1)
        if number % 2:
            np.save(folder / f"r{number}.npy", channels)
        else:
            np.savetxt(folder / f"r{number}.csv", channels, delimiter=",")
        row = f"r{number},{classes[label]}"
        rows.append(row if people is None else f"{row},p{number // len(classes) % people}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
