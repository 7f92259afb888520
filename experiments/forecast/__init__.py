"""Predicting the next sample of an ECG: gradients through half an hour against truncated ones."""
