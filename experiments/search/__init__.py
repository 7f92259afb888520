"""Search settings for every method alike: ``python -m experiments.search mnist``.

Every method is a recurrence in the same gated blocks, trained by the same loop. Trial i draws the
same numbers for all of them, from one space (:mod:`.space`), and a method takes those that it has
an option for. Every trial has about the same number of parameters and the same number of updates;
its processor time is a second reading. Trials are judged on the validation data at the end of the
schedule; an experiment of the catalogue is to test the best settings, with seeds of its own. What a
method is worth is the expected best of n trials, in which one that failed counts as the worst of
all. Four methods are ours: the best of them would have had four times the trials of another.
"""
