"""Running a Graph in PyTorch, float or quantized."""
