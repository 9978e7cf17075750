"""What several families need; no family of its own."""
