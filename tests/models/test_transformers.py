"""Modules of transformers, and the unfolded patches and outputs that they come with."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from qhyvit.models.shared.export import export
from qhyvit.models.shared.source import open_source
from qhyvit.models.shared.submodules import with_equivalents
from qhyvit.models.shared.torch_forms import TorchForms
from qhyvit.models.shared.weights import randomize
from tests._model_files import Small, outputs


@pytest.mark.parametrize(("kernel", "stride", "padding"), [
    (2, 2, 0), ((2, 4), (2, 4), 0), (2, 1, 0), (2, 2, 1), (3, 3, 0),
])  # fmt: skip
def test_patches_side_by_side_are_axes_that_move(kernel, stride, padding):
    x = torch.rand(1, 3, 8, 8)
    expected = F.unfold(x, kernel, stride=stride, padding=padding)
    back = F.fold(expected, (8, 8), kernel, stride=stride, padding=padding)
    with TorchForms():
        assert torch.equal(F.unfold(x, kernel, stride=stride, padding=padding), expected)
        assert torch.equal(F.fold(expected, (8, 8), kernel, stride=stride, padding=padding), back)


@pytest.mark.parametrize("kind", ["MobileViTForImageClassification", "MobileViTV2ForSemanticSegmentation", "ViTModel"])
def test_modules_of_transformers(kind):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"image_size": 64, "hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 16, 16, 24, 32]}
    config = {
        "MobileViTForImageClassification": lambda: transformers.MobileViTConfig(
            **sizes, num_attention_heads=2, num_labels=5, output_stride=32, last_hidden_state_size=32
        ),
        "MobileViTV2ForSemanticSegmentation": lambda: transformers.MobileViTV2Config(
            image_size=64, width_multiplier=0.25, n_attn_blocks=[1, 1, 1], num_labels=5,
            base_attn_unit_dims=[32, 32, 32], aspp_out_channels=16,
        ),
        "ViTModel": lambda: transformers.ViTConfig(
            image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=16,
        ),
    }[kind]()  # fmt: skip
    module = getattr(transformers, kind)(config).eval()
    randomize(module, 0)
    source = open_source(module)
    assert source.shape == (config.image_size, config.image_size, 3)
    made = export(source)
    assert source.rewrite is with_equivalents
    names = {"ViTModel": ["last_hidden_state", "pooler_output"]}.get(kind, ["logits"])
    tasks = {"ViTModel": "raw", "MobileViTForImageClassification": "classify"}
    assert [o["name"] for o in made.facts["outputs"]] == names
    assert made.facts["task"] == tasks.get(kind, "segment")


class Tied(Small):
    """One tensor under two names, beside nothing and one that is nested."""

    def forward(self, pixels):
        logits = super().forward(pixels)
        return {"logits": logits, "loss": None, "again": logits, "more": (logits * 2, None)}


def test_outputs_may_be_tied_nested_or_nothing():
    module = Tied()
    module.preprocess = {"input_size": 16}
    made = export(open_source(module))
    assert [o["name"] for o in made.facts["outputs"]] == ["logits", "again", "more.output_0"]
    x = np.random.default_rng(0).random((1, 16, 16, 3), np.float32)
    logits, again, twice = outputs(made.tflite, x)
    assert torch.equal(logits, again)
    torch.testing.assert_close(twice, 2 * logits)
