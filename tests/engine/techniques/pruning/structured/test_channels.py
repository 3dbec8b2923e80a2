from engine.models.loading import load_pretrained
from engine.techniques.pruning.structured.channels import dense_copy
from tests.structures import CHANNELS, assert_alike, subject_of


def test_a_plain_copy_is_the_model(folders, tmp_path):
    subject = subject_of("resnet", folders, tmp_path, CHANNELS["channels"], data=False)
    assert_alike(dense_copy(subject), load_pretrained(subject.folder), "resnet")
