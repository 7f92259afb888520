"""Measure speed and memory against what people use today."""
