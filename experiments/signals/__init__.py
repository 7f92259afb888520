"""Classification of signals: from whole recordings to folds and batches of equal lengths."""
