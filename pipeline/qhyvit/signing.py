"""Signing a bundle by OpenSSF's ``model-signing``, with a private key of an elliptic curve and without a network."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qhyvit import files
from qhyvit.errors import InputError, OutputError
from qhyvit_device import manifest as manifests
from qhyvit_device import signature

INSTALL = "in an environment of its own, pip install 'qhyvit[sign]'"


@dataclass(frozen=True)
class Signed:
    """The signature file; ``key_sha256``: of the public key in PEM; ``files``: what was signed."""

    path: Path
    key_sha256: str
    files: tuple[str, ...]


def _library() -> tuple[Any, Any]:
    """Modules of ``model-signing``.

    Raises:
        InputError: it is not installed, or something that it needs.
    """
    try:
        from model_signing import hashing, signing
    except ImportError as error:
        raise InputError(f"qhyvit sign needs the extra sign, which is not whole ({error}); {INSTALL}") from error
    return hashing, signing


def _public_key(key: Path) -> signature.PublicKey:
    """The public half of a private key.

    Raises:
        InputError: it is none, of another curve, or encrypted.
    """
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = files.read_bytes(key, "key")
    try:
        private = load_pem_private_key(content, None)
    except TypeError as error:
        raise InputError(f"{key}: encrypted; `openssl pkey -in {key} -out PLAIN` takes the passphrase off") from error
    except Exception as error:  # ValueError, UnsupportedAlgorithm, and what a damaged file may raise besides
        raise InputError(f"{key}: no private key in PEM; `openssl ecparam -name prime256v1 -genkey -noout -out KEY` "
                         "makes one") from error  # fmt: skip
    return signature.public_key(key, private.public_key())


def _names(bundle: Path) -> list[str]:
    """The files of a whole bundle, without its signature.

    Raises:
        QhyvitError: no bundle, a damaged one, or one that holds more.
    """
    found = manifests.read_bundle(bundle, signed=False)
    names = [manifests.FILE_NAME, *found.manifest.checksums]
    more = sorted({p.name for p in bundle.iterdir()} - {*names, signature.FILE_NAME})
    if more:
        raise InputError(f"{bundle / more[0]}: no file of the bundle; take it out, everything in the folder is signed")
    return names


def sign(bundle: Path, key: Path, *, force: bool = False) -> Signed:
    """Write ``BUNDLE/model.sig``, a signature of all files of a bundle.

    Args:
        key: private key in PEM, of the curve P-256, P-384 or P-521, not encrypted.
        force: replace a signature that is there.

    Raises:
        InputError: no bundle, no such key, or the extra is not installed.
        OutputError: the signature is there already, or cannot be written.
    """
    hashing, signing = _library()
    public, names = _public_key(key), _names(bundle)
    target = bundle / signature.FILE_NAME
    if target.exists() and not force:
        raise OutputError(f"{target} exists; use --force to sign anew")
    files.check_file(target)
    ignored = hashing.Config().set_ignored_paths(paths=[signature.FILE_NAME], ignore_git_paths=False)
    config = signing.Config().use_elliptic_key_signer(private_key=str(key)).set_hashing_config(ignored)
    with tempfile.TemporaryDirectory() as place:
        made = Path(place) / signature.FILE_NAME
        config.sign(str(bundle), str(made))
        content = made.read_bytes()
    if set(signature.signed_digests(content, public, str(target))) != set(names):
        raise InputError(f"{bundle}: its files changed meanwhile; sign it again")
    files.write_bytes(target, content)
    signature.signed_files(bundle, public)
    return Signed(target, public.hint, tuple(sorted(names)))
