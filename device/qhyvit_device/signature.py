"""Who made a bundle: an OpenSSF model signature in its folder, checked before anything else there is looked at.

The format is that of the package ``model-signing``: a Sigstore bundle (JSON) around a DSSE envelope, whose payload is
an in-toto statement with the SHA-256 of every file. Here only signatures of elliptic keys are read, and
``cryptography`` alone is needed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qhyvit_device import files
from qhyvit_device.errors import DeviceError, InputError

FILE_NAME = "model.sig"
VARIABLE = "QHYVIT_PUBLIC_KEY"  # of the environment: the public key that every bundle has to be signed by
MOST_BYTES, MOST_KEY_BYTES, MOST_FILE = 1 << 20, 1 << 16, 1 << 30
MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
HASHES = {"secp256r1": "SHA256", "secp384r1": "SHA384", "secp521r1": "SHA512"}  # by the key's curve
DIGEST = re.compile(r"[0-9a-f]{64}")
INSTALL = "pip install 'qhyvit[verify]'"


class SignatureError(InputError):
    """A bundle that is not signed by the key, or is not the one that was signed."""


@dataclass(frozen=True)
class PublicKey:
    """A public key of an elliptic curve; ``hint``: SHA-256 of its PEM, as signatures name it."""

    path: Path
    key: Any
    hint: str


def _crypto() -> tuple[Any, Any, Any, Any]:
    """What is needed of ``cryptography``.

    Raises:
        DeviceError: it is not installed.
    """
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise DeviceError(f"signatures cannot be checked: cryptography is not installed; {INSTALL}") from error
    return InvalidSignature, hashes, serialization, ec


def public_key(path: Path, key: Any) -> PublicKey:
    """A key of ``cryptography`` as what signatures are checked by.

    Raises:
        InputError: it is of another kind.
    """
    _, _, serialization, ec = _crypto()
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in HASHES:
        raise InputError(f"{path}: not a key of the curves {', '.join(HASHES)}")
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(path, key, hashlib.sha256(pem).hexdigest())


def read_key(path: Path) -> PublicKey:
    """A public key from a PEM file.

    Raises:
        InputError: missing, unreadable, no public key, or one of another kind.
        DeviceError: ``cryptography`` is not installed.
    """
    _, _, serialization, _ = _crypto()
    content = files.read(path, MOST_KEY_BYTES, links=True)
    try:
        key = serialization.load_pem_public_key(content)
    except Exception as error:  # ValueError, UnsupportedAlgorithm, and what a damaged file may raise besides
        hint = "; this is a private key, keep it off the board" if b"PRIVATE KEY" in content else ""
        raise InputError(f"{path}: no public key in PEM{hint}") from error
    return public_key(path, key)


def configured() -> PublicKey | None:
    """The key that bundles have to be signed by on this machine; None where none is asked for.

    Raises:
        InputError: the variable names no such key. It is never passed over.
    """
    name = os.environ.get(VARIABLE)
    if name is None:
        return None
    if not name:
        raise InputError(f"{VARIABLE} is empty: name the file of a public key, or unset it")
    try:
        return read_key(Path(name))
    except InputError as error:
        raise InputError(f"{VARIABLE}: {error}") from error


def _only(raw: Any, *names: str, optional: tuple[str, ...] = ()) -> list[Any]:
    """Values of an object that has these names, and no others but ``optional`` ones.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(raw, dict) or not set(names) <= set(raw) <= {*names, *optional}:
        raise ValueError(f"needs {', '.join(names)}")
    return [raw[name] for name in names]


def _decoded(text: Any) -> bytes:
    """Base64 in its one canonical form.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(text, str):
        raise ValueError("no base64")
    found = base64.b64decode(text.encode("ascii"), validate=True)
    if base64.b64encode(found).decode() != text:
        raise ValueError("no canonical base64")
    return found


def _envelope(content: bytes) -> tuple[str, bytes, bytes]:
    """Key hint, payload and signature of a signature file, as they stand there.

    Raises:
        ValueError: it is none.
    """
    media, material, envelope = _only(
        json.loads(content.decode()), "mediaType", "verificationMaterial", "dsseEnvelope"
    )
    (key,) = _only(material, "publicKey", optional=("tlogEntries",))
    (hint,) = _only(key, "hint")
    payload, payload_type, signatures = _only(envelope, "payload", "payloadType", "signatures")
    if media != MEDIA_TYPE or payload_type != PAYLOAD_TYPE or material.get("tlogEntries", []) != []:
        raise ValueError("of another format")
    if not isinstance(signatures, list) or len(signatures) != 1 or not isinstance(hint, str):
        raise ValueError("not one signature of one key")
    (signature,) = _only(signatures[0], "sig", optional=("keyid",))
    if signatures[0].get("keyid", "") != "":
        raise ValueError("a key id")
    return hint, _decoded(payload), _decoded(signature)


def _statement(payload: bytes) -> dict[str, str]:
    """SHA-256 by file name, of a payload whose signature is right.

    Raises:
        ValueError, KeyError, TypeError: it is no statement of this kind.
    """
    raw = json.loads(payload.decode())
    predicate = raw["predicate"]
    serialization = predicate["serialization"]
    kinds = raw["_type"], raw["predicateType"], serialization["method"], serialization["hash_type"]
    if kinds != (STATEMENT_TYPE, PREDICATE_TYPE, "files", "sha256"):
        raise ValueError("of another kind")
    found: dict[str, str] = {}
    for resource in predicate["resources"]:
        name, digest = resource["name"], resource["digest"]
        if not isinstance(name, str) or not DIGEST.fullmatch(digest) or resource["algorithm"] != "sha256":
            raise ValueError("no name with a SHA-256")
        if name in found or Path(name).name != name or name in ("", ".", "..", FILE_NAME):
            raise ValueError("no plain file name")
        found[name] = digest
    return found


def signed_digests(content: bytes, key: PublicKey, what: str) -> dict[str, str]:
    """SHA-256 of every file, by its name, that a signature file of this key vouches for.

    Args:
        content: of the signature file. Its signature is checked before the statement in it is read.
        what: names it in errors.

    Raises:
        SignatureError: no such file, another key, or a signature that is not right.
    """
    invalid, hashes, _, ec = _crypto()
    try:
        hint, payload, signature = _envelope(content)
    except (ValueError, RecursionError, binascii.Error) as error:
        raise SignatureError(f"{what}: no signature of a bundle; get the bundle again") from error
    if hint != key.hint:
        raise SignatureError(f"{what}: signed by another key than {key.path}; get the bundle from its maker")
    # DSSE's pre-authentication encoding: the type is signed as well
    signed = b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)
    try:
        key.key.verify(signature, signed, ec.ECDSA(getattr(hashes, HASHES[key.key.curve.name])()))
    except invalid as error:
        raise SignatureError(f"{what}: the signature is not right by {key.path}; get the bundle again") from error
    try:
        return _statement(payload)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SignatureError(f"{what}: what is signed is no list of a bundle's files; sign it anew") from error


def signed_files(folder: Path, key: PublicKey, handle: int | None = None) -> dict[str, bytes]:
    """The content of every file of a folder, each as it was signed.

    Args:
        handle: of the open folder, see :func:`qhyvit_device.files.open_regular`.

    Raises:
        SignatureError: not signed by the key; a file is missing, more than what was signed, or not as it was.
        InputError: a link, no regular file, or unreadable.
    """
    what = str(folder / FILE_NAME)
    try:
        names = set(os.listdir(folder if handle is None else handle))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: {getattr(error, 'strerror', None) or error}; is this a bundle folder?") from error
    if FILE_NAME not in names:
        raise SignatureError(f"{folder}: not signed, it has no {FILE_NAME}; its maker signs it with `qhyvit sign`")
    digests = signed_digests(files.read(folder / FILE_NAME, MOST_BYTES, folder=handle), key, what)
    _check_names(folder, names - {FILE_NAME}, digests)
    found = {}
    for name, digest in digests.items():
        content = files.read(folder / name, MOST_FILE, folder=handle)
        if hashlib.sha256(content).hexdigest() != digest:
            raise SignatureError(f"{folder / name}: not the file that was signed; get the bundle again")
        found[name] = content
    return found


def _check_names(folder: Path, there: set[str], signed: Mapping[str, str]) -> None:
    """Refuse files that were added or taken away.

    Raises:
        SignatureError: with the first one.
    """
    for names, said in ((there - set(signed), "is not signed"), (set(signed) - there, "was signed and is missing")):
        if names:
            raise SignatureError(f"{folder / min(names)} {said}; get the bundle again")
