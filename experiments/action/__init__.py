"""Action recognition: from recordings of movements to the sequences that a classifier trains on.

folds.py      who is trained on, and who is tested
sampling.py   which frames of a recording are shown
views.py      position, orientation and mirror image; bones and motion
augment.py    rotation, scale and shear
dataset.py    all of this as one Dataset, and its batches
forest.py     a random forest to compare with

The tasks are ``experiments/tasks/action.py`` and ``experiments/tasks/sessions.py``.
"""
