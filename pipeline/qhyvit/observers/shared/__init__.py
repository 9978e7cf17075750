"""What several observers need; no observer of its own."""
