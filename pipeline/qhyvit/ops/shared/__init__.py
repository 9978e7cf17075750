"""What several ops need; no op of its own."""
