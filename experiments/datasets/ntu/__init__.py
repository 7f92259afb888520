"""NTU RGB+D 60 and 120: skeletons of 25 joints, of one or two people.

Shahroudy, Liu, Ng and Wang (2016) and Liu et al. (2019) recorded 60 and then 120 actions of 40 and
106 people with three Kinect v2. Each recording is a text file ``SsssCcccPpppRrrrAaaa.skeleton``.

text.py        what is in a file, and the reader that says what is wrong with one
reader.py      the fast reader
actors.py      who acts: from bodies in frames to two people over time
names.py       what a name tells; joints, bones and actions; recordings that are left out
protocols.py   who trains and who is tested
sources.py     which files there are
conversion.py  ``python -m experiments.datasets ntu RAW OUT``
parts.py       what a conversion has finished, for the next one to go on from
benchmark.py   the fast reader against others
"""

from experiments.datasets.ntu.actors import main_actors
from experiments.datasets.ntu.conversion import convert
from experiments.datasets.ntu.protocols import split, summary
from experiments.datasets.ntu.reader import read_skeleton
from experiments.datasets.ntu.text import SkeletonError, Skeletons

__all__ = [
    "SkeletonError",
    "Skeletons",
    "convert",
    "main_actors",
    "read_skeleton",
    "split",
    "summary",
]
