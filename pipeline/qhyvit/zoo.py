"""A zoo: one TOML of models becomes bundles with a card each, and a page that shows them beside each other."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qhyvit import api, card, files
from qhyvit.config import BuildConfig, OutputConfig, read_toml, relative
from qhyvit.data import combined_hash, hash_files
from qhyvit.errors import QhyvitError, UsageError
from qhyvit.options import Settings, options_of, setting
from qhyvit.overview import Shown, render, times_of_cards
from qhyvit.progress import Log, Progress, silent
from qhyvit.work import toolchain
from qhyvit_device.manifest import read_bundle
from qhyvit_device.preprocess import images_in

STATE, PAGE = "zoo.json", "index.html"
PARTS = tuple(options_of(BuildConfig))


@dataclass(frozen=True)
class CardConfig(Settings):
    """What a card is made of, see :class:`qhyvit.card.CardRequest`."""

    images: Path | None = setting(None, "Labelled images to measure accuracy on.")
    labels: Path | None = setting(None, "Another labels.csv.")
    bench: float | None = setting(None, "Measure times here, so many seconds.", low=0.1, high=3600)
    licence: str = setting(card.NOT_STATED, "Licence of the weights.")


@dataclass(frozen=True)
class Entry:
    """One model of a zoo: its name, how it is built (into ``OUT/NAME``), and what its card holds."""

    name: str
    build: BuildConfig
    card: CardConfig


@dataclass(frozen=True)
class Zoo:
    """All of them, and the page."""

    made: tuple[Shown, ...]
    page: Path

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"page": str(self.page), "models": [m.to_json() for m in self.made]}


def read_zoo(path: Path) -> tuple[str, tuple[Entry, ...]]:
    """Title and models of a TOML file; paths in it are relative to it.

    ``[defaults]`` holds what all builds and cards share, by the parts of a build and ``card``; each of ``[[models]]``
    has a ``name``, and in the same parts what differs.

    Raises:
        InputError, UsageError: unreadable, no TOML, an unknown key, something missing, two names that are equal.
    """
    raw, base = read_toml(path), path.resolve().parent
    unknown = set(raw) - {"title", "defaults", "models"}
    models, defaults = raw.get("models"), raw.get("defaults", {})
    if unknown or not isinstance(models, list) or not models or not isinstance(defaults, dict):
        what = f"has no option {min(unknown)!r}" if unknown else "needs [[models]]"
        raise UsageError(f"{path.name} {what}; a zoo has title, [defaults] and [[models]]")
    found = tuple(_entry(given, defaults, f"{path.name}, model {i}", base) for i, given in enumerate(models, 1))
    names = [entry.name for entry in found]
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise UsageError(f"{path.name}: two models are called {twice!r}")
    return str(raw.get("title", "Models")), found


def _entry(given: Any, defaults: Mapping[str, Any], whose: str, base: Path) -> Entry:
    if not isinstance(given, dict) or not isinstance(given.get("name"), str):
        raise UsageError(f"{whose} needs a name")
    name = given["name"]
    if not name or Path(name).name != name or name.startswith(".") or name in (STATE, PAGE):
        raise UsageError(f"{whose}: {name!r} is no name of a folder")
    parts: dict[str, Any] = {}
    for part, own in [*defaults.items(), *((k, v) for k, v in given.items() if k != "name")]:
        if part not in (*PARTS, "card") or not isinstance(own, dict):
            raise UsageError(f"{whose} has no table {part!r}; known: {', '.join((*PARTS, 'card'))}")
        parts[part] = {**parts.get(part, {}), **own}
    about = CardConfig.parse(relative(CardConfig, parts.pop("card", {}), base), whose)
    return Entry(name, BuildConfig.parse(relative(BuildConfig, parts, base), whose), about)


def make(
    path: Path, out: Path, progress: Progress = silent, log: Log = silent, *, force: bool = False
) -> Zoo:  # fmt: skip
    """Bundles ``OUT/NAME``, their cards ``OUT/NAME.card.md`` and ``.json``, and ``OUT/index.html``.

    What is there and was made of the same settings, files and code is kept. A model that fails is named on the page,
    and the others are made.

    Args:
        force: make all of it again.

    Raises:
        QhyvitError: see :func:`read_zoo`; or the page cannot be written.
    """
    title, entries = read_zoo(path)
    with files.lock(out / "lock", wait=False):
        state = {} if force else _state(out / STATE)
        made = []
        for i, entry in enumerate(entries):
            progress(f"zoo: {entry.name}", i / len(entries))
            made.append(_made(entry, out, state, _Talk(entry.name, progress, log), force=force))
        page = out / PAGE
        files.write_text(page, render(title, made, times_of_cards(made)))
    return Zoo(tuple(made), page)


@dataclass(frozen=True)
class _Talk:
    """Progress and log lines of one model, with its name."""

    name: str
    tell: Progress
    say: Log

    def progress(self, what: str, share: float) -> None:
        self.tell(f"{self.name}: {what}", share)

    def log(self, line: str) -> None:
        self.say(f"{self.name}: {line}")


def _state(path: Path) -> dict[str, Any]:
    """What was made of what; nothing where that cannot be read, and then all is made again."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _made(entry: Entry, out: Path, state: dict[str, Any], talk: _Talk, *, force: bool) -> Shown:
    bundle = out / entry.name
    try:
        key = files.sha256(json.dumps([toolchain(), entry.build.to_json(), [*_digests(entry.build)]]).encode())
        known = state.get(entry.name)
        if isinstance(known, dict) and known.get("build") == key and _is_whole(bundle):
            talk.log("bundle unchanged, kept")
        else:
            _build(entry, bundle, talk, force=force)
            state[entry.name] = {**(known if isinstance(known, dict) else {}), "build": key}
            files.write_text(out / STATE, json.dumps(state, indent=1) + "\n")
        return Shown(entry.name, "", _card(entry, bundle, state, talk), f"{entry.name}.card.md")
    except QhyvitError as error:
        talk.log(f"failed: {error}")
        return Shown(entry.name, str(error), None)


def _is_whole(bundle: Path) -> bool:
    """Whether a bundle is there with all its files as they were made."""
    try:
        read_bundle(bundle)
    except QhyvitError:
        return False
    return True


def _build(entry: Entry, bundle: Path, talk: _Talk, *, force: bool) -> None:
    given = entry.build.output
    output = OutputConfig(bundle, files.beside(bundle, ".work"), given.labels, given.min_agreement)
    built = api.build(
        replace(entry.build, output=output), force=force, replace_bundle=True, command="qhyvit zoo",
        progress=talk.progress, log=talk.log,
    )  # fmt: skip
    if built.bundle is None:
        failed = [check["name"] for check in built.verdict["checks"] if not check["passed"]]
        raise QhyvitError(f"verification failed: {'; '.join(failed)}")


def _digests(config: BuildConfig) -> Iterator[str]:
    """Hashes of the files that a build reads."""
    from qhyvit.models.importers import identity
    from qhyvit.models.shared.shards import weights_digest

    model, labels = config.model, config.output.labels
    yield "" if model.weights is None else weights_digest(model.weights)
    yield json.dumps(identity(model.name))
    place, own, _ = model.name.partition(files.OWN)
    yield files.sha256(files.read_bytes(Path(f"{place}.py"), "model")) if own else ""
    if model.name.startswith(files.LOCAL_DIR):
        folder = Path(model.name.removeprefix(files.LOCAL_DIR))
        yield from (files.sha256(files.read_bytes(p, "model")) for p in sorted(folder.iterdir()) if p.is_file())
    yield combined_hash(hash_files(images_in(config.data.images)))
    yield "" if labels is None else files.sha256(files.read_bytes(labels, "label names"))


def _card(entry: Entry, bundle: Path, state: dict[str, Any], talk: _Talk) -> card.Card:
    target, about = files.beside(bundle, ".card"), entry.card
    digests = [card.bundle_digest(bundle)]
    if about.images is not None:
        digests.append(card.images_digest(about.images, about.labels))
    key = files.sha256(json.dumps([card.SCHEMA_VERSION, about.to_json(), digests]).encode())
    path, words = files.beside(target, ".json"), files.beside(target, ".md")
    if state[entry.name].get("card") == key and path.is_file() and words.is_file():
        talk.log("card unchanged, kept")
        return card.read(path)
    made = card.make(
        card.CardRequest(bundle, about.images, about.labels, None, entry.build.data.resize_mode, about.bench,
                         about.licence), talk.progress, talk.log,
    )  # fmt: skip
    card.write(made, target)
    state[entry.name]["card"] = key
    files.write_text(bundle.parent / STATE, json.dumps(state, indent=1) + "\n")
    talk.log("card written")
    return made
