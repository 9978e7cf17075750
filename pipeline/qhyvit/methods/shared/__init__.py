"""What several methods need; no method of its own."""
