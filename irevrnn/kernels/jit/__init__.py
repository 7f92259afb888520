"""Build the kernels on first use and cache them."""
