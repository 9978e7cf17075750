"""Twenty attributes on MobileViTv2-0.75's pooled features: logistic regressions, as one trains a head on a backbone.

Writes the network's weights with this head, and the attributes of the 950 evaluation images. Example:

    python -m benchmarks.attributes --data images/ --weights mobilevitv2_075.safetensors --out attributes/
    python -m benchmarks.tasks families.py:mobilevitv2_075_attributes --task multilabel --evaluate images/ \\
        --weights attributes/mobilevitv2_075_attributes.safetensors --labels attributes/attributes.csv \\
        --images images/imagenet_train_1000 --count 128
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks._files import pixels_of
from benchmarks.families import mobilevitv2_075_features
from benchmarks.train import normalized
from qhyvit import data, files
from qhyvit_device.preprocess import Preprocess

NAME = "mobilevitv2_075_attributes"
TRAINING, EVALUATION = "imagenet_train_1000", ("imagenet_val_650", "imagenet_val_extra_300")
CALIBRATION, SEED = 128, 0  # so many images of the training folder are left to calibrate on, a build's of this seed
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)  # of the squared weights, with features of mean 0 and deviation 1
FOLDS, BATCH = 5, 32
CLASSES = {  # of ImageNet
    "animal": "0-397",
    "mammal": "101-106 147-299 330-388",
    "carnivore": "150-299 356-362 387-388",
    "dog": "151-268",
    "feline": "281-293",
    "hoofed": "339-355",
    "primate": "365-384",
    "bird": "7-24 80-100 127-146",
    "reptile_or_amphibian": "25-68",
    "snake": "52-68",
    "fish": "0-6 389-397",
    "arthropod": "69-79 118-126 300-326",
    "insect": "300-326",
    "vehicle": "403-405 407 408 417 436 444 450 466 468 472 484 510 511 537 547 554 555 561 565 569 573 575 576 586 "
    "603 609 612 625 627 628 654 656 661 665 670 671 675 690 705 717 724 734 751 757 779 780 802 803 812 814 817 820 "
    "829 833 847 864 866 867 870 871 874 880 895 914",
    "boat": "403 472 484 510 554 576 625 628 724 780 814 833 871 914",
    "instrument": "401 402 420 432 486 494 513 541 546 558 566 577 579 593 594 641 642 683 684 687 699 776 822 875 "
    "881 889",
    "clothing": "399 400 411 433 439 445 452 457 459 474 501 502 514 515 529 568 578 601 608 610 614 617 630 638 639 "
    "652 655 658 667 689 697 735 770 774 775 793 796 806 808 824 834 841 842 869 887 906",
    "food": "924-957 959-967 969",
    "fruit_or_vegetable": "936-946 948-957",
    "landscape": "970 972-980",
}


def attributes(classes: np.ndarray) -> np.ndarray:
    """Class indices [N] -> 0 and 1, [N, attributes], in the order of :data:`CLASSES`."""
    has = np.zeros((1000, len(CLASSES)), np.int64)
    for column, text in enumerate(CLASSES.values()):
        for part in text.split():
            first, _, last = part.partition("-")
            has[int(first) : int(last or first) + 1, column] = 1
    found: np.ndarray = has[classes]
    return found


def training_images(folder: Path) -> data.Labelled:
    """The labelled images of the folder without those that calibrate."""
    listed = data.read_labels(folder)
    calibrating = data.calibration_images(folder, CALIBRATION, SEED)
    hashes = data.hash_files(listed.paths)
    return listed.part([i for i, content in enumerate(hashes) if content not in calibrating])


def features(state: Mapping[str, torch.Tensor], paths: list[Path]) -> torch.Tensor:
    """[N, 384] float64; images whole, at the network's size, as builds and evaluations of the benchmark take them."""
    net = mobilevitv2_075_features().eval()
    net.load_state_dict(state)
    facts = net.preprocess
    how = Preprocess("squash", facts["resize"], facts["interpolation"], facts["mean"], facts["std"])  # type: ignore[index]
    size, found = facts["input_size"], []  # type: ignore[index]
    for start in range(0, len(paths), BATCH):
        pixels = torch.from_numpy(pixels_of(paths[start : start + BATCH], (size, size), how))  # type: ignore[list-item]
        with torch.no_grad():
            found.append(net(normalized(pixels.permute(0, 3, 1, 2), how)))
    return torch.cat(found).double()


def fitted(x: torch.Tensor, y: torch.Tensor, penalty: float) -> nn.Linear:
    """The logistic regressions of features [N, D] on labels [N, L]: mean log loss and penalty are least.

    All features have one deviation: a third of them hardly vary, and would get enormous weights by one of their own.
    """
    mean = x.mean(0)
    deviation = (x - mean).square().mean().sqrt()
    scaled = (x - mean) / deviation
    head = nn.Linear(x.shape[1], y.shape[1], dtype=x.dtype)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=1000, tolerance_grad=1e-6, tolerance_change=1e-12,
                                  line_search_fn="strong_wolfe")  # fmt: skip

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        found = log_loss(head, scaled, y) * y.shape[1] + penalty / 2 * head.weight.square().sum()
        found.backward()
        return found

    optimizer.step(loss)  # type: ignore[arg-type]
    with torch.no_grad():
        head.weight /= deviation
        head.bias -= head.weight @ mean
    return head


def log_loss(head: nn.Linear, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Mean over images and labels."""
    return F.binary_cross_entropy_with_logits(head(x), y)


def best_penalty(x: torch.Tensor, y: torch.Tensor) -> float:
    """The one whose log loss on images that were left out is least: each fifth image, in turn."""
    fold = torch.arange(len(x)) % FOLDS

    def left_out(penalty: float) -> float:
        parts = ((fold != f, fold == f) for f in range(FOLDS))
        return sum(log_loss(fitted(x[a], y[a], penalty), x[b], y[b]).item() for a, b in parts)

    return min(PENALTIES, key=left_out)


def table(folder: Path) -> str:
    """The evaluation images of the folders inside with their attributes, as CSV."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["file", *CLASSES])
    for name in EVALUATION:
        listed = data.read_labels(folder / name)
        for path, row in zip(listed.paths, attributes(listed.truth), strict=True):
            writer.writerow([path.relative_to(folder).as_posix(), *row])
    return stream.getvalue()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help=f"folder of {TRAINING}, {' and '.join(EVALUATION)}")
    parser.add_argument("--weights", type=Path, required=True, help="of mobilevitv2_075")
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights and attributes.csv")
    args = parser.parse_args()
    state, images = safetensors.torch.load_file(args.weights), training_images(args.data / TRAINING)
    x, y = features(state, images.paths), torch.from_numpy(attributes(images.truth)).double()
    penalty = best_penalty(x, y)
    head = fitted(x, y, penalty)
    state |= {f"head.fc.{name}": v.float().contiguous() for name, v in head.state_dict().items()}
    args.out.mkdir(parents=True, exist_ok=True)
    files.write_bytes(args.out / f"{NAME}.safetensors", safetensors.torch.save(state))
    files.write_text(args.out / "attributes.csv", table(args.data))
    print(f"{len(x)} images trained the head; the penalty is {penalty:g}")


if __name__ == "__main__":
    main()
