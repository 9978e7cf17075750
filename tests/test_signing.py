"""`qhyvit sign`: signatures that OpenSSF's model-signing and a board find right, of whole bundles alone."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from qhyvit import files, image
from qhyvit_device import Model, signature
from qhyvit_device.manifest import load
from tests._bundles import device, make_bundle
from tests._commands import called

pytest.importorskip("model_signing.signing", reason="the extra sign is not installed", exc_type=ImportError)
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from model_signing import hashing, signing, verifying

PEM = serialization.Encoding.PEM


def key(folder, name="maker", made=None, password=None):
    """Files of a private key and its public half."""
    private = made or ec.generate_private_key(ec.SECP256R1())
    how = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    pem = private.private_bytes(PEM, serialization.PrivateFormat.PKCS8, how)
    public = private.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    paths = folder / f"{name}.pem", folder / f"{name}.pub"
    for path, content in zip(paths, (pem, public), strict=True):
        path.write_bytes(content)
    return paths


@pytest.fixture
def bundle(tmp_path):
    return make_bundle(tmp_path / "b", "classify")


@pytest.fixture
def keys(tmp_path):
    return key(tmp_path)


@pytest.mark.parametrize("curve", [ec.SECP256R1, ec.SECP384R1, ec.SECP521R1])
def test_what_is_signed_is_right_for_a_board_and_for_the_library(bundle, tmp_path, capsys, curve):
    private, public = key(tmp_path, made=ec.generate_private_key(curve()))
    names = sorted(p.name for p in bundle.iterdir())
    assert called("sign", bundle, "--key", private, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["files"] == names
    assert told["file"] == str(bundle / "model.sig")
    assert told["key_sha256"] == signature.read_key(public).hint
    code, out, err = device(capsys, "verify", bundle, "--key", public)
    assert (code, err) == (0, []), out
    library = verifying.Config().use_elliptic_key_verifier(public_key=public)
    library.verify(bundle, bundle / "model.sig")
    (bundle / "labels.txt").write_text("a\nb\nc\n")
    with pytest.raises(ValueError, match=r"labels\.txt"):
        library.verify(bundle, bundle / "model.sig")
    assert device(capsys, "verify", bundle, "--key", public)[0] == 1


def test_a_board_takes_what_the_library_signs_by_its_defaults(bundle, keys, capsys):
    private, public = keys
    signing.Config().use_elliptic_key_signer(private_key=private).set_hashing_config(
        hashing.Config().set_ignored_paths(paths=["model.sig"])
    ).sign(bundle, bundle / "model.sig")
    assert device(capsys, "verify", bundle, "--key", public)[0] == 0
    (bundle / ".gitignore").write_text("x")  # the library passes over this one
    verifying.Config().use_elliptic_key_verifier(public_key=public).verify(bundle, bundle / "model.sig")
    assert device(capsys, "verify", bundle, "--key", public)[0] == 1


def test_a_signature_is_replaced_by_force_alone(bundle, keys, tmp_path, capsys):
    assert called("sign", bundle, "--key", keys[0]) == 0
    before = (bundle / "model.sig").read_bytes()
    other, public = key(tmp_path, "other")
    assert called("sign", bundle, "--key", other) == 2
    assert "use --force to sign anew" in capsys.readouterr().err
    assert (bundle / "model.sig").read_bytes() == before
    assert called("sign", bundle, "--key", other, "--force") == 0
    assert device(capsys, "verify", bundle, "--key", public)[0] == 0


def test_a_signed_bundle_is_still_one_of_ours(bundle, keys):
    """It may be replaced by --force, goes whole into images and tars, and is read as before."""
    assert called("sign", bundle, "--key", keys[0]) == 0
    assert files.holds_a_bundle(bundle)
    packed = dict(image.bundle_files(bundle, load(bundle / "manifest.json"), "x"))
    assert set(packed) == {"x", *(f"x/{p.name}" for p in bundle.iterdir())}
    assert Model.load(bundle).manifest.model == "classify"


def test_where_signatures_are_asked_for_bundles_can_be_signed(bundle, keys, monkeypatch, capsys):
    monkeypatch.setenv("QHYVIT_PUBLIC_KEY", str(keys[1]))
    assert called("card", bundle) == 2
    assert "not signed" in capsys.readouterr().err
    assert called("sign", bundle, "--key", keys[0]) == 0
    assert called("card", bundle) == 0


@pytest.mark.parametrize(("what", "said"), [
    ("public", "no private key in PEM"), ("garbage", "no private key in PEM"), ("missing", "No such file"),
    ("encrypted", "encrypted; `openssl pkey"), ("ed25519", "not a key of the curves"),
    ("secp256k1", "not a key of the curves"), ("folder", "folder"),
    ("damaged", "checksum differs"), ("more", "no file of the bundle"), ("no bundle", "is this a bundle folder"),
])  # fmt: skip
def test_a_mistake_is_one_line_and_nothing_is_written(bundle, keys, tmp_path, capsys, what, said):
    private = {
        "public": lambda: keys[1], "missing": lambda: tmp_path / "gone", "folder": lambda: tmp_path,
        "encrypted": lambda: key(tmp_path, "locked", password=b"secret")[0],
        "ed25519": lambda: key(tmp_path, "ed", made=ed25519.Ed25519PrivateKey.generate())[0],
        "secp256k1": lambda: key(tmp_path, "k1", made=ec.generate_private_key(ec.SECP256K1()))[0],
        "garbage": lambda: bundle / "test.png",
    }.get(what, lambda: keys[0])()  # fmt: skip
    if what == "damaged":
        (bundle / "labels.txt").write_text("a\nb\nc\n")
    if what == "more":
        (bundle / "notes.txt").write_text("x")
    place = tmp_path / "nowhere" if what == "no bundle" else bundle
    before = sorted(tmp_path.rglob("*"))
    assert called("sign", place, "--key", private) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert said in err
    assert sorted(tmp_path.rglob("*")) == before


def test_signing_needs_the_extra_sign_alone(bundle, keys):
    """In a process where nothing else of the pipeline can be imported: the two do not fit into one environment."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    extras = {name: {re.match(r"[\w-]+", line)[0] for line in lines}
              for name, lines in project["optional-dependencies"].items()}  # fmt: skip
    gone = {name.replace("-", "_") for name in extras["pipeline"] - extras["sign"]}
    gone -= {"flatbuffers"}  # the runtime's own
    code = f"import sys; sys.modules.update(dict.fromkeys({sorted(gone)}))\nfrom qhyvit.cli import main; main()"
    command = [sys.executable, "-c", code, "sign", str(bundle), "--key", str(keys[0])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (bundle / "model.sig").is_file()
    assert {"torch", "scipy", "jinja2"} <= gone


def test_without_the_extra_one_line_says_what_to_install(bundle, keys, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "model_signing", None)
    assert called("sign", bundle, "--key", keys[0]) == 2
    assert "pip install 'qhyvit[sign]'" in capsys.readouterr().err
