"""Models that cannot be teacher and student of each other are refused before the run."""

from tests.distillation import error_message
from tests.tiny import tiny


def test_incompatible_models_are_refused_before_the_run(run_step, folders, tmp_path):
    heard = []
    assert "is made for image-classification" in error_message(
        run_step, student=str(folders["resnet"]), report=heard.append
    )
    assert not any(event.stage == "measuring-original" for event in heard)
    assert "is made for image-classification" in error_message(
        run_step, setting="several", teachers=str(folders["resnet"])
    )
    assert "no further teachers" in error_message(run_step, setting="several")
    more = tiny("bert", tmp_path / "more", num_labels=4)
    assert "knows the classes label_0, label_1, label_2, label_3" in error_message(
        run_step, student=str(more)
    )
    cut = tiny("bert", tmp_path / "cut")
    (cut / "tokenizer.json").write_text(
        (cut / "tokenizer.json").read_text().replace('"<mask>"', '"<blank>"')
    )
    assert "tokenizes text differently" in error_message(run_step, student=str(cut))
