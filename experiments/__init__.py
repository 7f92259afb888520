"""Train, measure and draw what the paper reports."""
