"""The networks we compare with, as classifiers that train in the same loop."""
