"""Host stage: a float hybrid vision transformer becomes a verified, fully integer ``.tflite``.

Importing this package is cheap: torch, timm and litert-torch load with the stage that runs them.
"""

__version__ = "0.1.0"
