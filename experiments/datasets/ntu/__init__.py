"""NTU RGB+D 60 and 120: skeletons of 25 joints, of one or two people.

Shahroudy, Liu, Ng and Wang (2016) and Liu et al. (2019) recorded 60 and then 120 actions of 40 and
106 people with three Kinect v2. Each recording is a text file ``SsssCcccPpppRrrrAaaa.skeleton``.
"""

from experiments.datasets.ntu.conversion import convert
from experiments.datasets.ntu.samples import summary

__all__ = ["convert", "summary"]
