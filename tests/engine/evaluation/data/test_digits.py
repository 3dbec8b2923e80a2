import numpy as np
import pytest

from engine.errors import PlainError
from engine.evaluation import calibration_batches, evaluate
from engine.evaluation.data.digits import digit_splits, digits
from engine.evaluation.data.examples import load_examples
from engine.models.loading import load_pretrained, resolve_model
from engine.recipe.model_names import BUNDLED_MODELS
from engine.recipe.tasks import Calibration, ImageClassification

SPLITS = ("train", "validation", "test")
trained = pytest.mark.skipif(
    not (BUNDLED_MODELS["digits-cnn"].folder / "model.safetensors").exists(),
    reason="assets/models/digits-cnn is not here",
)


def test_the_splits_are_all_images_once():
    assert sum(len(digits(split).labels) for split in SPLITS) == 1797


@pytest.mark.parametrize("split", SPLITS)
def test_every_digit_has_its_share_of_every_split(split):
    counts = np.bincount(digits(split).labels)
    assert len(counts) == 10 and counts.max() - counts.min() <= 0.1 * counts.max() + 1


def test_the_split_depends_on_order_within_a_digit_alone():
    labels = np.repeat([3, 7], 10)
    shuffled = np.random.default_rng(0).permutation(20)
    assert sorted(digit_splits(labels[shuffled])[labels[shuffled] == 3]) == sorted(
        digit_splits(labels)[labels == 3]
    )


def test_a_split_there_is_not_is_refused():
    with pytest.raises(PlainError, match="no split named 'dev'; it has train, validation and test"):
        digits("dev")


@trained
def test_the_bundled_model_reads_held_out_digits():
    folder = resolve_model("bundled:digits-cnn")
    measured = evaluate(ImageClassification(), load_pretrained(folder), folder)
    card = (folder.path / "README.md").read_text()
    assert measured.scores["accuracy"] > 0.98
    assert f"accuracy **{measured.scores['accuracy']:.3f}**" in card
    assert measured.protocol.fingerprint in card


@trained
def test_calibration_images_are_not_test_images():
    batches = calibration_batches(
        Calibration(samples=20), ImageClassification(), resolve_model("bundled:digits-cnn")
    )
    assert sum(len(batch["pixel_values"]) for batch in batches) == 20
    train = ImageClassification(split="train")
    seen = {image.tobytes() for image in load_examples(train).inputs}
    assert not seen & {image.tobytes() for image in load_examples(ImageClassification()).inputs}
