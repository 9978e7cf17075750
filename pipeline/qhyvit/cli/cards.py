"""Commands for giving a bundle to others: its card, a zoo of many, its signature."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from qhyvit import console, files
from qhyvit.cli.app import Bundle, FloatModel, Force, Json, Labels, Mode, app
from qhyvit.errors import CheckFailedError


@app.command(epilog="Example: `qhyvit card v2-int8 --images val/ --bench 5 --licence Apache-2.0`")
def card(
    bundle: Bundle,
    out: Annotated[Path | None, typer.Option(help="Cards to write, OUT.md and OUT.json; default BUNDLE.card.")] = None,
    images: Annotated[Path | None, typer.Option(help="Images to measure accuracy on, with labels.csv.")] = None,
    labels: Labels = None, float_model: FloatModel = None, mode: Mode = None,
    bench: Annotated[float | None, typer.Option(min=0.1, max=3600, help="Seconds to measure times here.")] = None,
    licence: Annotated[str, typer.Option(help="Licence of the weights.")] = "not stated",
    as_json: Json = False,
) -> None:  # fmt: skip
    """Write a card of a bundle: what it is, how it was made, how accurate and fast it is, how to run it."""
    from qhyvit import card as cards

    target = out or files.beside(bundle, ".card")
    for ending in (".md", ".json"):
        files.check_file(files.beside(target, ending))
    with console.talk() as talk:
        request = cards.CardRequest(bundle, images, labels, float_model, mode, bench, licence)
        made = cards.make(request, talk.progress, talk.log)
    written = cards.write(made, target)
    if as_json:
        print(json.dumps(made.to_json()))
        return
    for path in written:
        console.say(path)


@app.command(epilog="Example: `qhyvit zoo zoo.toml --out zoo/`; a second call makes what is missing or has changed.")
def zoo(
    spec: Annotated[Path, typer.Argument(help="TOML file: [defaults], and [[models]] with a name each.")],
    out: Annotated[Path, typer.Option(help="Folder of bundles, cards and the page; a second call goes on in it.")],
    as_json: Json = False, force: Force = False,
) -> None:  # fmt: skip
    """Build many models, write a card of each and one page of all; exit code 1 if some failed."""
    from qhyvit.zoo import make

    with console.talk() as talk:
        found = make(spec, out, talk.progress, talk.log, force=force)
    if as_json:
        print(json.dumps(found.to_json()))
    else:
        console.say(found.page)
    failed = [m.name for m in found.made if m.failed]
    if failed:
        raise CheckFailedError(f"{len(failed)} of {len(found.made)} models failed: {', '.join(failed)}")


@app.command(epilog="Example: `qhyvit sign v2-int8 --key maker.pem`; `qhyvit-device verify v2-int8 --key maker.pub`")
def sign(
    bundle: Bundle,
    key: Annotated[Path, typer.Option(help="Private key in PEM: P-256, P-384 or P-521.")],
    as_json: Json = False, force: Force = False,
) -> None:  # fmt: skip
    """Sign a bundle with OpenSSF's model-signing, so that boards can refuse what others made; needs the extra sign."""
    from qhyvit import signing

    made = signing.sign(bundle, key, force=force)
    if as_json:
        print(json.dumps({"file": str(made.path), "key_sha256": made.key_sha256, "files": made.files}))
        return
    console.say(f"{made.path}: {len(made.files)} files, by the key {made.key_sha256[:16]}")
