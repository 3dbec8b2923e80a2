"""Training of ``bundled:digits-cnn``: a small ResNet that reads handwritten digits. Takes about two
minutes on one core.

python -m engine.bundled.digits_cnn --epochs 40 --checkpoint /tmp/digits-cnn.pt
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn.functional import affine_grid, cross_entropy, grid_sample
from transformers import ResNetConfig, ResNetForImageClassification
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from engine.bundled.pretraining import Schedule, TrainingCurve, curve_table, train
from engine.evaluation.data.digits import NAMES, Digits, digits
from engine.evaluation.data.examples import examples_fingerprint

OUT = Path("assets/models/digits-cnn")
BATCH, PIXELS = 64, 32
CONFIG = ResNetConfig(
    num_channels=1,
    embedding_size=32,
    hidden_sizes=[32, 64],
    depths=[2, 2],
    layer_type="basic",
    id2label=dict(enumerate(NAMES)),
    label2id={name: digit for digit, name in enumerate(NAMES)},
)
# 8 x 8 pixels are enlarged, because the first layers of a ResNet divide each side by four
PROCESSOR = ViTImageProcessorPil(
    size={"height": PIXELS, "width": PIXELS}, resample=2, image_mean=[0.5], image_std=[0.5]
)
# maximum angle, share of half a side, and share of the size
ROTATION, SHIFT, ZOOM = math.radians(12), 0.15, 0.12


@dataclass(frozen=True)
class DigitTensors:
    pixels: torch.Tensor  # (images, 1, PIXELS, PIXELS)
    labels: torch.Tensor  # (pictures,)

    @classmethod
    def from_digits(cls, data: Digits) -> "DigitTensors":
        return cls(
            PROCESSOR(data.images, return_tensors="pt")["pixel_values"], torch.tensor(data.labels)
        )


def augmented_images(pixels: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """Rotate, shift and scale each image a little, as handwriting varies. Uncovered pixels are
    paper.
    """
    angle, zoom, right, down = (2 * torch.rand(4, len(pixels), generator=draw) - 1).unbind()
    angle, zoom = ROTATION * angle, 1 + ZOOM * zoom
    transforms = torch.stack(
        [angle.cos(), -angle.sin(), SHIFT * right, angle.sin(), angle.cos(), SHIFT * down], dim=1
    ).view(-1, 2, 3)
    transforms[:, :, :2] *= zoom[:, None, None]
    grid = affine_grid(transforms, list(pixels.shape), align_corners=False)
    return grid_sample(pixels + 1, grid, align_corners=False) - 1  # paper is -1, padding is 0


def training_batch(data: DigitTensors, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """BATCH augmented images and their labels. The order is a new shuffle each epoch, determined by
    the step.
    """
    per_epoch = len(data.labels) // BATCH
    order = torch.randperm(
        len(data.labels), generator=torch.Generator().manual_seed(step // per_epoch)
    )
    rows = order[(step % per_epoch) * BATCH :][:BATCH]
    return augmented_images(data.pixels[rows], torch.Generator().manual_seed(step)), data.labels[
        rows
    ]


@torch.no_grad()
def loss_and_accuracy(
    model: ResNetForImageClassification, data: DigitTensors
) -> tuple[float, float]:
    """Mean loss and accuracy."""
    model.eval()
    logits = torch.cat([model(part).logits for part in data.pixels.split(256)])
    model.train()
    return cross_entropy(logits, data.labels).item(), (
        logits.argmax(1) == data.labels
    ).float().mean().item()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--epochs", type=int, default=40)
    options.add_argument("--rate", type=float, default=3e-3)
    options.add_argument("--checkpoint", type=Path, default=Path("digits-cnn.pt"))
    arguments = options.parse_args()
    torch.manual_seed(0)
    splits = {split: digits(split) for split in ("train", "validation", "test")}
    data = {split: DigitTensors.from_digits(images) for split, images in splits.items()}
    model, curve = train_classifier(arguments, data)
    scores = {split: loss_and_accuracy(model, data[split])[1] for split in data}
    model.save_pretrained(OUT)
    PROCESSOR.save_pretrained(OUT)
    (OUT / "README.md").write_text(model_card(arguments, model, splits, curve, scores))
    print("accuracy: " + ", ".join(f"{split} {accuracy:.4f}" for split, accuracy in scores.items()))


def train_classifier(
    arguments: argparse.Namespace, data: dict[str, DigitTensors]
) -> tuple[ResNetForImageClassification, TrainingCurve]:
    model = ResNetForImageClassification(CONFIG).train()
    steps = arguments.epochs * (len(data["train"].labels) // BATCH)

    def loss(step: int) -> torch.Tensor:
        pixels, labels = training_batch(data["train"], step)
        return cross_entropy(model(pixels).logits, labels, label_smoothing=0.05)

    schedule = Schedule(steps, arguments.rate, warmup=steps // 20, decay_share=0.7)
    return model, train(
        model,
        loss,
        lambda: loss_and_accuracy(model, data["validation"])[0],
        schedule,
        arguments.checkpoint,
        every=steps // 8,
    )


def model_card(
    arguments: argparse.Namespace,
    model: ResNetForImageClassification,
    splits: dict[str, Digits],
    curve: TrainingCurve,
    scores: dict[str, float],
) -> str:
    counts = ", ".join(f"{len(data.labels):,} {split}" for split, data in splits.items())
    fingerprint = examples_fingerprint(splits["test"].images, splits["test"].labels)
    return f"""# digits-cnn

A ResNet ({sum(CONFIG.depths)} basic layers, {CONFIG.hidden_sizes[0]} and
{CONFIG.hidden_sizes[1]} channels) that reads handwritten digits,
{sum(p.numel() for p in model.parameters()):,} parameters, stored in float32.

- **Data**: the 1,797 gray images of 8 x 8 pixels in scikit-learn (`load_digits`; UCI Optical
  Recognition of Handwritten Digits), enlarged to {PIXELS} x {PIXELS}. Fixed, stratified splits:
  {counts}. Fingerprint of the test images and labels `{fingerprint}`.
- **Command**: `python -m engine.bundled.digits_cnn --epochs {arguments.epochs}
  --rate {arguments.rate}`, seed 0. Each image is randomly rotated, shifted and scaled a little.
- **Held out**: accuracy **{scores["test"]:.3f}** on the test images, which were not used before
  (validation {scores["validation"]:.3f}, train {scores["train"]:.3f}). The splits share writers, so
  digits of other writers are harder.

The held-out loss is measured on validation; the training loss has label smoothing 0.05 in it.

{curve_table(curve)}
"""


if __name__ == "__main__":
    main()
