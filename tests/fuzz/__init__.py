"""Fuzzing: kinds of input, and the command that runs mutated ones of them in parallel: ``python -m tests.fuzz``."""
