"""Action recognition: from recordings of movements to what a sequence classifier trains on.

protocols.py  who is trained on, and who is tested
sampling.py   which frames of a recording are shown
views.py      where the body is and how it is turned, its mirror image; bones and motion
augment.py    rotation, scale and shear
dataset.py    all of this as one Dataset, and its batches
task.py       ``python -m experiments.train action``
sessions.py   ``python -m experiments.train sessions``: all that a person did as one sequence
forest.py     a random forest to compare with
"""
