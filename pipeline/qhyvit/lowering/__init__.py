"""From a float graph and a plan to the typed graph that the file holds."""
