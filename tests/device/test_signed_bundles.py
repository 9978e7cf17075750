"""A board that asks for signatures: every command and program, keys that are none, and updates."""

import json
import shutil
import sys

import pytest

from qhyvit_device import LiveModel, Model, cli, manifest, signature, trial
from qhyvit_device.errors import InputError
from qhyvit_device.signature import SignatureError, signed_files
from tests._bundles import device, make_bundle

pytest.importorskip("cryptography", reason="the extra verify is not installed")
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from tests._signed import INFO, PEM, Maker

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
