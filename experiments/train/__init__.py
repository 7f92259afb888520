"""Train a sequence classifier: the loop, its configuration and its command line."""
