"""A page that explains a build: what quantization did to each tensor, what it cost, what would pay; and comparisons.

``facts.py`` says what is known, as data; ``gather.py`` finds it out; ``page.py`` draws it, and computes nothing.
"""
