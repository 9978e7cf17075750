"""A card of a bundle: what it is, how it was made, how good and how fast, how to run it; as Markdown and as JSON."""

from qhyvit.card.facts import NOT_STATED, SCHEMA_VERSION, Card, Figure, Measured, Speed, read
from qhyvit.card.gather import READS, RUNS, CardRequest, bundle_digest, images_digest, interval, key_of, make
from qhyvit.card.text import markdown, write

__all__ = [
    "NOT_STATED", "READS", "RUNS", "SCHEMA_VERSION", "Card", "CardRequest", "Figure", "Measured", "Speed",
    "bundle_digest", "images_digest", "interval", "key_of", "make", "markdown", "read", "write",
]  # fmt: skip
