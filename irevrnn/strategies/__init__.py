"""Choose what is saved between the forward and the backward pass."""
