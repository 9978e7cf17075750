"""What is known of a file on its board, in words; a manifest may say anything."""

import pytest

from qhyvit_device.targets import target_words

VELA = {"ms": 35.92, "sram_kib": 2049.3, "on_npu": 826, "on_cpu": 0}


@pytest.mark.parametrize(("said", "words"), [
    ({"name": "litert", "proof": "x"}, "litert"),
    ({"name": "tflm", "arena_bytes": 2048000, "flash_bytes": 1024},
     "tflm: arena 2000 KiB, measured on a 64-bit processor; flash 1 KiB"),
    ({"name": "ethos-u55-256", "estimated": VELA},
     "ethos-u55-256: 826 operators on the NPU, 0 on the CPU; 35.9 ms and 2049 KiB SRAM, estimated by Vela"),
    ({"name": "ethos-u55-256", "estimated": {**VELA, "ms": "fast"}}, "ethos-u55-256"),
    ({"name": "ethos-u55-256", "estimated": [VELA]}, "ethos-u55-256"),
    ({"name": "edgetpu-rules", "rules": {"mapped": 4, "operators": 5, "refused": []}},
     "edgetpu-rules: 4 of 5 operators could be mapped by published rules; no compiler was run"),
    ({"name": "edgetpu-rules", "rules": {"mapped": "all", "operators": 5}}, "edgetpu-rules"),
    ({"name": "tflm", "arena_bytes": True, "flash_bytes": 1}, "tflm"),
    ({"name": "tflm", "arena_bytes": float("nan"), "flash_bytes": 10**400}, "tflm"),
    ({"name": 5}, ""), ({}, ""), ("tflm", ""), (None, ""),
])  # fmt: skip
def test_what_can_be_read_is_said_and_nothing_else(said, words):
    assert target_words({"target": said}) == words


def test_a_name_cannot_write_to_the_terminal():
    assert all(c.isprintable() for c in target_words({"target": {"name": "a\x1b[2J\nb"}}))


def test_a_manifest_without_a_target_says_nothing():
    assert target_words({}) == ""
