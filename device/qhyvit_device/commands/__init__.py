"""Commands of ``qhyvit-device``: one file each, which defines ``COMMAND``."""
