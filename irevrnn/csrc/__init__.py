"""The C++ kernels and their build."""
