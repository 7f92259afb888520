"""Free Spoken Digit Dataset: 3,000 recordings of ten digits by six speakers, by Z. Jackson et al.

A file ``{digit}_{speaker}_{index}.wav`` is one digit, spoken in English: 8 kHz, mono, 16 bit, 0.1
to 2.3 s. The authors' test set are the indices 0 to 4. Samples are divided by 2**15, so that they
lie in [-1, 1). The column ``index`` is that of the name; the subject is the place in ``SPEAKERS``.
"""

import io
import re
import wave
from pathlib import Path

import numpy as np

from experiments.datasets import DataError
from experiments.datasets.archives import listing_sha256
from experiments.datasets.raw_files import raw_contents
from experiments.datasets.recordings import Description, Recordings, open_recordings, writing

_HOME = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs"
ADDRESSES = (f"{_HOME}/tags/v1.0.10.zip", f"{_HOME}/heads/master.zip")
FILES = re.compile(r".*\.wav", re.DOTALL)
#: SHA-256 of the listing of the files.
SHA256 = "dbd573d7cafe79c4b49f65718115e1304e24e067fa39eff18a660dc6cb9c360f"
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
#: Indices of the authors' test set.
TEST_INDICES = range(5)
ABOUT = Description(
    data_set="Free Spoken Digit Dataset",
    kind="signal",
    class_names=(
        "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    ),
    frame_rate=8000.0,
    source="Free Spoken Digit Dataset, 1.0.10",
    joint_names=("sound",),
)  # fmt: skip
_NAME = re.compile(r"((\d)_([a-z]+)_(\d{1,6}))\.wav")


def difference(raw: Path) -> str | None:
    """Return how the files differ from the published ones; None if they do not."""
    same = listing_sha256(raw_contents(raw, FILES, lambda file, reason: None)) == SHA256
    return None if same else "the files are not those published"


def convert(raw: Path, out: Path, note: str = "") -> Recordings:
    """Convert the files in ``raw``; ``note`` is appended to the source."""
    with writing(out, ABOUT, note=note) as writer:
        for file, data in raw_contents(raw, FILES, writer.reject):
            try:
                name, digit, speaker, index = _parse_name(file)
                frames = read_samples(data)
            except DataError as error:
                writer.reject(file, str(error))
            else:
                writer.add(frames, digit, SPEAKERS.index(speaker), name, index=index)
    return open_recordings(out)


def read_samples(data: bytes) -> np.ndarray:
    """Return the samples of a .wav file, (samples, 1) float32 in [-1, 1), or raise a DataError."""
    try:
        with wave.open(io.BytesIO(data)) as file:
            form = file.getparams()
            samples = file.readframes(form.nframes)
    except (wave.Error, EOFError, ValueError, RuntimeError) as error:
        raise DataError(f"no sound can be read: {str(error) or 'it ends early'}") from error
    if (form.nchannels, form.sampwidth, form.framerate) != (1, 2, ABOUT.frame_rate):
        raise DataError(
            f"{form.nchannels} channels of {8 * form.sampwidth} bit at {form.framerate} Hz; "
            "expected one of 16 bit at 8000 Hz"
        )
    # The sizes of the whole and of its last part are in the file, whose end may be missing.
    whole = 8 + int.from_bytes(data[4:8], "little")
    if len(samples) != 2 * form.nframes or len(data) != whole:
        raise DataError(f"{len(data)} bytes; expected {whole}, with {form.nframes} samples")
    if form.nframes == 0:
        raise DataError("the file holds no samples")
    return np.frombuffer(samples, "<i2").astype(np.float32)[:, None] / np.float32(2**15)


def _parse_name(file: str) -> tuple[str, int, str, int]:
    match = _NAME.fullmatch(file)
    if match is None:
        raise DataError("the name is not {digit}_{speaker}_{index}.wav")
    name, digit, speaker, index = match.groups()
    if speaker not in SPEAKERS:
        raise DataError(f"the speaker {speaker} is none of {', '.join(SPEAKERS)}")
    return name, int(digit), speaker, int(index)
