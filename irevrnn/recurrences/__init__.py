"""The recurrences that a strategy can run."""
