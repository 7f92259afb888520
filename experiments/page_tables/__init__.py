"""Tables of figures in README.md and docs/, made from the committed results.

What stands on a page between ``<!-- table: NAME -->`` and ``<!-- end -->`` is the table of that
name; ``make tables`` writes them all. :mod:`.trained` has those of accuracy, :mod:`.costs` those of
time and memory. :mod:`.collected` makes the file and the figures that compare experiments.
"""
