"""Signatures of bundles, made by ``cryptography`` alone."""

import base64
import hashlib
import json

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from qhyvit_device.signature import read_key

PEM, INFO = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo


class Maker:
    """A private key, its public file, and signatures of any statement."""

    def __init__(self, folder, name="maker", curve=None):
        self.private = ec.generate_private_key(curve or ec.SECP256R1())
        self.public = folder / f"{name}.pub"
        pem = self.private.public_key().public_bytes(PEM, INFO)
        self.public.write_bytes(pem)
        self.hint = hashlib.sha256(pem).hexdigest()
        self.key = read_key(self.public)

    def envelope(self, payload, kind="application/vnd.in-toto+json"):
        before = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode()
        size = self.private.curve.key_size
        hashed = {256: hashes.SHA256, 384: hashes.SHA384, 521: hashes.SHA512}[size]()
        made = self.private.sign(before + payload, ec.ECDSA(hashed))
        return {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {"publicKey": {"hint": self.hint}, "tlogEntries": []},
            "dsseEnvelope": {
                "payload": base64.b64encode(payload).decode(), "payloadType": kind,
                "signatures": [{"sig": base64.b64encode(made).decode(), "keyid": ""}],
            },
        }  # fmt: skip

    def sign(self, folder):
        content = compact(self.envelope(json.dumps(statement(folder)).encode()))
        (folder / "model.sig").write_bytes(content)
        return folder


def compact(raw):
    return json.dumps(raw, separators=(",", ":")).encode()


def statement(folder):
    paths = sorted(p for p in folder.iterdir() if p.name != "model.sig")
    digests = [hashlib.sha256(p.read_bytes()).hexdigest() for p in paths]
    rows = [{"name": p.name, "algorithm": "sha256", "digest": d} for p, d in zip(paths, digests, strict=True)]
    return {
        "_type": "https://in-toto.io/Statement/v1", "subject": [{"name": folder.name, "digest": {"sha256": "0" * 64}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {"serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False},
                      "resources": rows},
    }  # fmt: skip
