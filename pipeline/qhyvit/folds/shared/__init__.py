"""What several folds need; no fold of its own."""
