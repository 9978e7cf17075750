"""The typed graph and its edits."""
