"""The compiled kernels: their operators, the reference, and how they are built and chosen."""
