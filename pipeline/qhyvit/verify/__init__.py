"""Proof that a file does what the simulation said."""
