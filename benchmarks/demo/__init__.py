"""The embedded demo: generated images, a small MobileViT trained on them, and the whole pipeline on both."""
