"""Kinds of input: one file each, which defines ``KIND``."""
