"""Signed bundles on a board: nothing of a bundle is used that is not, byte by byte, what the owner of the key signed.

Signatures are made here by ``cryptography`` alone, and one was made by model-signing 1.1.1 (``known_answer.sig``).
"""

import base64
import hashlib
import json
import random
import shutil
import sys
from pathlib import Path

import pytest

from qhyvit_device import LiveModel, Model, cli, manifest, signature, trial
from qhyvit_device.errors import DeviceError, InputError
from qhyvit_device.signature import SignatureError, read_key, signed_digests, signed_files
from tests._bundles import device, make_bundle

crypto = pytest.importorskip("cryptography", reason="the extra verify is not installed")
from cryptography.hazmat.primitives import hashes, serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: E402

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


@pytest.fixture
def maker(tmp_path):
    return Maker(tmp_path)


@pytest.fixture
def signed(tmp_path, maker):
    return maker.sign(make_bundle(tmp_path / "signed", "classify"))


@pytest.fixture
def unsigned(tmp_path):
    return make_bundle(tmp_path / "unsigned", "classify")


@pytest.fixture
def asked(maker, monkeypatch):
    """This machine asks for the maker's signature."""
    monkeypatch.setenv("QHYVIT_PUBLIC_KEY", str(maker.public))


def test_a_signature_of_the_library_is_read():
    """Two files, P-384; what is changed in it is refused as well."""
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


# what loads a bundle: {b} of the bundle, {p} a picture, {f} a free folder
COMMANDS = ("classify {b} {p}", "classify {b} {p} --trust once", "classify {b} --watch {w} --frames 1", "run {b} {p}",
            "info {b}", "bench {b} --runs 1 --seconds 0", "bench {b} --runs 1 --seconds 0 --profile-ops",
            "update {f} {b}", "embed {b} {p}", "segment {b} {p}", "embed {b} {p} --gallery {w}")  # fmt: skip
OTHER_TASK = ("embed", "segment")


@pytest.mark.parametrize("words", COMMANDS)
def test_no_command_looks_into_an_unsigned_bundle(words, unsigned, signed, photo, tmp_path, asked, monkeypatch, capsys):
    looked = []
    parsed = manifest._parsed
    monkeypatch.setattr(manifest, "_parsed", lambda content, path: looked.append(path) or parsed(content, path))
    watched = tmp_path / "watched"
    watched.mkdir()
    shutil.copy(photo, watched / "a.png")
    place = {"p": photo, "f": tmp_path / "live", "w": watched}
    before = sorted(p for p in tmp_path.rglob("*"))
    code, out, err = device(capsys, *(word.format(b=unsigned, **place) for word in words.split()))
    assert (code, out) == (2, [])
    assert err == [f"qhyvit-device: error: {unsigned}: not signed, it has no model.sig; "
                   "its maker signs it with `qhyvit sign`"]  # fmt: skip
    assert looked == []
    assert sorted(p for p in tmp_path.rglob("*")) == before
    if "--watch" in words:
        return  # it would wait for a new picture
    code, _, err = device(capsys, *(word.format(b=signed, **place) for word in words.split()))
    assert code == (2 if words.split()[0] in OTHER_TASK else 0), err


def test_every_command_that_takes_a_bundle_is_tried():
    """A new command has to be added above."""
    assert {words.split()[0] for words in COMMANDS} == set(cli.COMMANDS) - {"doctor", "verify"}


def test_python_programs_are_held_to_it_as_well(signed, unsigned, asked):
    for load in (Model.load, trial.load, LiveModel, manifest.read_bundle, lambda b: manifest.load(b / "manifest.json")):
        load(signed)
        with pytest.raises(SignatureError):
            load(unsigned)
    assert manifest.read_bundle(unsigned, signed=False).manifest.model == "classify"


def test_a_running_model_goes_on_with_the_signed_one(signed, tmp_path, maker, asked):
    live = LiveModel(signed)
    first = live.current()
    other = make_bundle(tmp_path / "other", "classify")
    raw = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps({**raw, "model": "other"}))
    shutil.copytree(other, signed, dirs_exist_ok=True)
    assert live.current() is first
    assert isinstance(live.refused, SignatureError)
    maker.sign(signed)
    (signed / "manifest.json").touch()
    assert live.current() is not first
    assert live.refused is None


def test_what_is_used_is_what_was_checked(signed, maker, asked, monkeypatch):
    """Files that are replaced right behind the check change nothing."""
    check = signature.signed_files
    whole = (signed / "model.tflite").read_bytes()

    def and_replaced(*given):
        found = check(*given)
        for name in found:
            (signed / name).write_bytes(b"evil")
        return found

    monkeypatch.setattr(signature, "signed_files", and_replaced)
    found = manifest.read_bundle(signed)
    assert found.files["model.tflite"] == whole


def test_a_manifest_is_held_to_the_files_that_were_signed(signed, maker, asked):
    """A bundle whose manifest names the signature itself, or what is not there."""
    raw = json.loads((signed / "manifest.json").read_text())
    raw["checksums"]["model.sig"] = "0" * 64
    (signed / "manifest.json").write_text(json.dumps(raw))
    maker.sign(signed)
    with pytest.raises(InputError, match="not among the files that were signed"):
        Model.load(signed)
    (signed / "manifest.json").unlink()
    maker.sign(signed)
    with pytest.raises(InputError, match="not among the files that were signed; is this a bundle"):
        Model.load(signed)


def test_without_a_key_nothing_changes(signed, unsigned, monkeypatch, capsys):
    monkeypatch.delenv("QHYVIT_PUBLIC_KEY", raising=False)
    (signed / "notes.txt").write_text("x")
    (signed / "model.sig").write_text("garbage")
    monkeypatch.setitem(sys.modules, "cryptography", None)
    for folder in (signed, unsigned):
        assert Model.load(folder).manifest.model == "classify"
    code, out, err = device(capsys, "verify", unsigned)
    assert (code, out) == (2, [])
    assert "give the maker's public key: --key PUBLIC, or in QHYVIT_PUBLIC_KEY" in err[0]


@pytest.mark.parametrize(("content", "said"), [
    (None, "No such file"), (b"", "no public key in PEM"), (b"\xff" * 99, "no public key in PEM"),
    (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "no public key in PEM"),
    ("private", "keep it off the board"), ("rsa", "not a key of the curves"), ("ed25519", "not a key of the curves"),
    ("secp256k1", "not a key of the curves"), (b"x" * 70000, "refused"),
])  # fmt: skip
def test_a_key_that_is_none_refuses_every_bundle(signed, maker, tmp_path, monkeypatch, capsys, content, said):
    path = tmp_path / "key"
    kinds = {"rsa": lambda: rsa.generate_private_key(65537, 2048), "ed25519": ed25519.Ed25519PrivateKey.generate,
             "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1())}  # fmt: skip
    if content == "private":
        pkcs8, open_ = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        content = maker.private.private_bytes(PEM, pkcs8, open_)
    elif content in kinds:
        content = kinds[content]().public_key().public_bytes(PEM, INFO)
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("QHYVIT_PUBLIC_KEY", str(path))
    for words in (("info", signed), ("verify", signed)):
        code, out, err = device(capsys, *words)
        assert (code, out, len(err)) == (2, [], 1)
        assert said in err[0]
        assert err[0].startswith("qhyvit-device: error: QHYVIT_PUBLIC_KEY: ")
    code, out, _ = device(capsys, "doctor")
    assert code == 1
    assert any(line.startswith("MISSING  signatures: no bundle is read") for line in out)


def test_an_empty_variable_is_not_passed_over(signed, monkeypatch, capsys):
    monkeypatch.setenv("QHYVIT_PUBLIC_KEY", "")
    code, _, err = device(capsys, "info", signed)
    said = "QHYVIT_PUBLIC_KEY is empty: name the file of a public key, or unset it"
    assert (code, err) == (2, [f"qhyvit-device: error: {said}"])


def test_a_key_without_the_library_refuses_every_bundle(signed, asked, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cryptography", None)
    monkeypatch.delitem(sys.modules, "cryptography.exceptions", raising=False)
    for words in (("info", signed), ("verify", signed)):
        code, out, err = device(capsys, *words)
        assert (code, out, len(err)) == (2, [], 1)
        assert "cryptography is not installed; pip install 'qhyvit[verify]'" in err[0]


def test_verify_says_by_whom_and_fails_by_exit_code_1(signed, unsigned, maker, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("QHYVIT_PUBLIC_KEY", raising=False)
    code, out, err = device(capsys, "verify", signed, "--key", maker.public)
    assert (code, err) == (0, [])
    assert out == [f"{signed}: 4 files as they were signed by the key {maker.hint[:16]}"]
    code, out, _ = device(capsys, "verify", signed, "--key", maker.public, "--json")
    assert json.loads(out[0])["files"] == ["labels.txt", "manifest.json", "model.tflite", "test.png"]
    other = Maker(tmp_path, "other")
    for words in ((unsigned, "--key", maker.public), (signed, "--key", other.public)):
        code, out, err = device(capsys, "verify", *words)
        assert (code, out, len(err)) == (1, [], 1)
    code, out, err = device(capsys, "verify", tmp_path / "nowhere", "--key", maker.public)
    assert (code, out, len(err)) == (2, [], 1)
    assert "is this a bundle folder?" in err[0]
    monkeypatch.setenv("QHYVIT_PUBLIC_KEY", str(other.public))  # --key says more
    assert device(capsys, "verify", signed, "--key", maker.public)[0] == 0
    assert device(capsys, "verify", signed)[0] == 1


def test_an_update_takes_the_signature_along_and_refuses_others(signed, unsigned, tmp_path, maker, asked, capsys):
    live = tmp_path / "live"
    assert device(capsys, "update", live, signed)[0] == 0
    assert signed_files(live, maker.key) == signed_files(signed, maker.key)
    newer = maker.sign(make_bundle(tmp_path / "newer", "classify"))
    assert device(capsys, "update", live, newer)[0] == 0
    (tmp_path / "live.previous" / "labels.txt").write_text("a\nb\nc\n")
    code, _, err = device(capsys, "update", live, "--back")
    assert (code, "not the file that was signed" in err[0]) == (1, True)
    assert device(capsys, "update", live, unsigned)[0] == 2
    assert signed_files(live, maker.key) == signed_files(newer, maker.key)


def test_a_signed_bundle_replaces_an_unsigned_one(signed, unsigned, asked, capsys):
    assert device(capsys, "update", unsigned, signed)[0] == 0
    assert Model.load(unsigned).manifest.model == "classify"


def test_errors_are_those_of_the_device_stage():
    assert issubclass(SignatureError, DeviceError)
    assert SignatureError("x").exit_code == 2
