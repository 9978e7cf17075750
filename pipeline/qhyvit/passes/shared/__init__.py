"""What several passes need; no pass of its own."""
