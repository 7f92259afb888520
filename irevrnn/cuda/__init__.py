"""The CUDA operators: kernels, registration and build."""
