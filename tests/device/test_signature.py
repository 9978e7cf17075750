"""Signatures of bundles: whatever is not, byte by byte, what the owner of the key signed is refused."""

import base64
import hashlib
import json
import random
import shutil
from pathlib import Path

import pytest

from qhyvit_device import signature
from qhyvit_device.errors import DeviceError, InputError
from qhyvit_device.signature import SignatureError, read_key, signed_digests, signed_files
from tests._bundles import make_bundle

pytest.importorskip("cryptography", reason="the extra verify is not installed")
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from tests._signed import Maker, compact, statement


def test_a_signature_of_the_library_is_read():
    """Two files, P-384, by model-signing 1.1.1; what is changed in it is refused as well."""
    here = Path(__file__).parent
    content, key = (here / "known_answer.sig").read_bytes(), read_key(here / "known_answer.pub")
    found = signed_digests(content, key, "it")
    files = {"a.txt": b"one", "manifest.json": b"two\n"}
    assert found == {name: hashlib.sha256(text).hexdigest() for name, text in files.items()}
    with pytest.raises(SignatureError):
        signed_digests(content.replace(b"MGUCMAU", b"MGUCMAV"), key, "it")


@pytest.mark.parametrize("curve", [ec.SECP256R1, ec.SECP384R1, ec.SECP521R1])
def test_a_signed_bundle_is_its_files(tmp_path, curve):
    maker = Maker(tmp_path, curve=curve())
    folder = maker.sign(make_bundle(tmp_path / "b", "classify"))
    found = signed_files(folder, maker.key)
    assert found == {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "model.sig"}
    folder.rename(tmp_path / "another name")
    assert signed_files(tmp_path / "another name", maker.key) == found


def test_every_changed_byte_of_every_file_is_refused(signed, maker):
    rng = random.Random(0)
    for path in sorted(p for p in signed.iterdir() if p.name != "model.sig"):
        whole = path.read_bytes()
        for place in {0, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(40))}:
            changed = bytearray(whole)
            changed[place] ^= rng.randrange(1, 256)
            path.write_bytes(changed)
            with pytest.raises(SignatureError, match="not the file that was signed"):
                signed_files(signed, maker.key)
        for other in (b"", whole[:-1], whole + b"\0"):
            path.write_bytes(other)
            with pytest.raises(SignatureError, match="not the file that was signed"):
                signed_files(signed, maker.key)
        path.write_bytes(whole)
    assert signed_files(signed, maker.key)


def test_every_changed_byte_of_the_signature_is_refused(signed, maker):
    """At each place another byte, the bits one by one as well; and every beginning of it."""
    whole = (signed / "model.sig").read_bytes()
    rng = random.Random(1)
    assert signed_digests(whole, maker.key, "it")
    for place in range(len(whole)):
        for flip in {1 << rng.randrange(8), rng.randrange(1, 256)}:
            changed = bytearray(whole)
            changed[place] ^= flip
            with pytest.raises(SignatureError):
                signed_digests(bytes(changed), maker.key, "it")
        with pytest.raises(SignatureError):
            signed_digests(whole[:place], maker.key, "it")


@pytest.mark.parametrize("how", ["file", "hidden", "folder", "link", "git"])
def test_what_was_added_is_refused(signed, maker, how):
    name = {"hidden": ".hidden", "git": ".gitattributes"}.get(how, "new.txt")
    if how == "folder":
        (signed / name).mkdir()
    elif how == "link":
        (signed / name).symlink_to("labels.txt")
    else:
        (signed / name).write_text("x")
    with pytest.raises(SignatureError, match=f"{name} is not signed"):
        signed_files(signed, maker.key)


def test_what_was_taken_away_is_refused(signed, maker):
    for path in sorted(signed.iterdir()):
        kept = path.read_bytes()
        path.unlink()
        with pytest.raises(SignatureError, match="no model.sig" if path.name == "model.sig" else "is missing"):
            signed_files(signed, maker.key)
        path.write_bytes(kept)


def test_links_folders_and_exchanged_files_are_refused(signed, maker, tmp_path):
    labels = signed / "labels.txt"
    labels.rename(tmp_path / "labels.txt")
    labels.symlink_to(tmp_path / "labels.txt")
    with pytest.raises(InputError, match="links are refused"):
        signed_files(signed, maker.key)
    labels.unlink()
    labels.mkdir()
    with pytest.raises(InputError, match="a folder, not a file"):
        signed_files(signed, maker.key)
    labels.rmdir()
    shutil.copy(signed / "test.png", labels)
    with pytest.raises(SignatureError, match="not the file that was signed"):
        signed_files(signed, maker.key)
    (signed / "model.sig").rename(tmp_path / "model.sig")
    (signed / "model.sig").symlink_to(tmp_path / "model.sig")
    with pytest.raises(InputError, match="links are refused"):
        signed_files(signed, maker.key)


def test_another_key_is_refused_even_where_its_hint_was_forged(signed, maker, tmp_path):
    other = Maker(tmp_path, "other")
    with pytest.raises(SignatureError, match="signed by another key"):
        signed_files(signed, other.key)
    forged = other.envelope(json.dumps(statement(signed)).encode())
    forged["verificationMaterial"]["publicKey"]["hint"] = maker.hint
    with pytest.raises(SignatureError, match="is not right"):
        signed_digests(compact(forged), maker.key, "it")


def test_the_signature_of_another_bundle_is_refused(signed, unsigned, maker):
    (unsigned / "labels.txt").write_text("cyan\nmagenta\nyellow\n")
    shutil.copy(signed / "model.sig", unsigned)
    with pytest.raises(SignatureError, match="not the file that was signed"):
        signed_files(unsigned, maker.key)


ENVELOPES = {
    "media type": lambda raw: raw.update(mediaType="application/json"),
    "more": lambda raw: raw.update(more=1),
    "less": lambda raw: raw.pop("verificationMaterial"),
    "certificate": lambda raw: raw["verificationMaterial"].update(certificate={}),
    "log": lambda raw: raw["verificationMaterial"].update(tlogEntries=[{}]),
    "no hint": lambda raw: raw["verificationMaterial"]["publicKey"].pop("hint"),
    "number as hint": lambda raw: raw["verificationMaterial"]["publicKey"].update(hint=1),
    "payload type": lambda raw: raw["dsseEnvelope"].update(payloadType="text/plain"),
    "no signature": lambda raw: raw["dsseEnvelope"].update(signatures=[]),
    "two signatures": lambda raw: raw["dsseEnvelope"].update(signatures=raw["dsseEnvelope"]["signatures"] * 2),
    "empty signature": lambda raw: raw["dsseEnvelope"]["signatures"][0].update(sig=""),
    "number as signature": lambda raw: raw["dsseEnvelope"]["signatures"][0].update(sig=7),
    "key id": lambda raw: raw["dsseEnvelope"]["signatures"][0].update(keyid="x"),
    "line end": lambda raw: raw["dsseEnvelope"].update(payload=raw["dsseEnvelope"]["payload"] + "\n"),
    "no base64": lambda raw: raw["dsseEnvelope"].update(payload="é"),
    "list": lambda raw: raw.update(dsseEnvelope=[]),
}  # fmt: skip


@pytest.mark.parametrize("change", ENVELOPES)
def test_a_malformed_envelope_is_refused(signed, maker, change):
    raw = json.loads((signed / "model.sig").read_text())
    ENVELOPES[change](raw)
    with pytest.raises(SignatureError):
        signed_digests(compact(raw), maker.key, "it")


STATEMENTS = {
    "type": lambda s: s.update(_type="x"), "predicate type": lambda s: s.update(predicateType="x"),
    "shards": lambda s: s["predicate"]["serialization"].update(method="shards"),
    "hash": lambda s: s["predicate"]["serialization"].update(hash_type="blake2"),
    "no resources": lambda s: s["predicate"].pop("resources"),
    "path": lambda s: s["predicate"]["resources"][0].update(name="../labels.txt"),
    "absolute": lambda s: s["predicate"]["resources"][0].update(name="/etc/passwd"),
    "up": lambda s: s["predicate"]["resources"][0].update(name=".."),
    "nothing": lambda s: s["predicate"]["resources"][0].update(name=""),
    "itself": lambda s: s["predicate"]["resources"][0].update(name="model.sig"),
    "number": lambda s: s["predicate"]["resources"][0].update(name=1),
    "twice": lambda s: s["predicate"]["resources"].append(s["predicate"]["resources"][0]),
    "capitals": lambda s: s["predicate"]["resources"][0].update(digest="A" * 64),
    "short": lambda s: s["predicate"]["resources"][0].update(digest="ab"),
    "line end": lambda s: s["predicate"]["resources"][0].update(digest="a" * 64 + "\n"),
    "null digest": lambda s: s["predicate"]["resources"][0].update(digest=None),
    "algorithm": lambda s: s["predicate"]["resources"][0].update(algorithm="md5"),
}  # fmt: skip


@pytest.mark.parametrize("change", STATEMENTS)
def test_a_signed_statement_that_is_no_list_of_files_is_refused(signed, maker, change):
    """The key's owner signed it, and still it is nothing that a bundle can be."""
    raw = statement(signed)
    STATEMENTS[change](raw)
    with pytest.raises(SignatureError, match="no list of a bundle's files"):
        signed_digests(compact(maker.envelope(json.dumps(raw).encode())), maker.key, "it")
    for payload in (b"", b"[]", b"null", b"\xff", b"[" * 10**5):
        with pytest.raises(SignatureError, match="no list of a bundle's files"):
            signed_digests(compact(maker.envelope(payload)), maker.key, "it")


def test_a_signature_that_is_large_or_deep_is_refused(signed, maker):
    for content in (b"[" * 10**5, b'{"a":' * 10**5, b"", b"\0" * 100, b"\xff\xfe", b"1" * 5000):
        (signed / "model.sig").write_bytes(content)
        with pytest.raises(SignatureError, match="no signature of a bundle"):
            signed_files(signed, maker.key)
    (signed / "model.sig").write_bytes(b" " * (signature.MOST_BYTES + 1))
    with pytest.raises(InputError, match="more than 1 MB"):
        signed_files(signed, maker.key)


def test_the_encoding_of_early_releases_is_refused(signed, maker):
    """Before 1.0 the library signed the text of the bytes; it still reads that."""
    raw = maker.envelope(b"")
    payload = json.dumps(statement(signed)).encode()
    kind = "application/vnd.in-toto+json"
    old = maker.private.sign(f"DSSEV1 {len(kind)} {kind} {len(payload)} {payload}".encode(), ec.ECDSA(hashes.SHA256()))
    raw["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    raw["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(old).decode()
    with pytest.raises(SignatureError, match="is not right"):
        signed_digests(compact(raw), maker.key, "it")


def test_errors_are_those_of_the_device_stage():
    assert issubclass(SignatureError, DeviceError)
    assert SignatureError("x").exit_code == 2
