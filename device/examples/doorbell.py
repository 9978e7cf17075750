"""A program of a board's own: rings when something that was asked for comes into the picture.

    python doorbell.py BUNDLE SOURCE "golden retriever" "tabby cat"

SOURCE is a folder that is watched, camera, camera:1 or picamera2. Ctrl-C ends it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from qhyvit_device import DeviceError, Model
from qhyvit_device.errors import InputError
from qhyvit_device.sources import frames

SURE = 0.4  # least probability


def main() -> int:
    """Watch for ever; exit code 2 where bundle or source cannot be used."""
    bundle, source, *wanted = sys.argv[1:]
    try:
        model = Model.load(Path(bundle))
        unknown = [name for name in wanted if name not in model.labels]
        if unknown:
            print(f"the model knows no {unknown[0]!r}", file=sys.stderr)
            return 2
        pictures = frames(source)
        print(f"watching {source}", file=sys.stderr, flush=True)
        for name, image in pictures:
            if isinstance(image, DeviceError):
                continue  # a picture that cannot be read rings no bell
            try:
                best = model.classify(image, top=1)[0]
            except InputError:
                continue
            if best.label in wanted and best.probability >= SURE:
                print(f"\a{name}: {best.label}, {best.probability:.0%}", flush=True)
    except DeviceError as error:
        print(f"doorbell: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
