import torch

from engine.techniques.implementations import survey
from engine.techniques.pruning.structured.config import Structured
from tests.structures import STEPS, subject_of


def test_a_neurons_output_score_is_wandas_of_its_column(folders, tmp_path):
    config = Structured(score="activations")
    subject = subject_of("opt", folders, tmp_path, STEPS["neurons-activations"])
    name = "model.decoder.layers.0.fc2"
    seen = subject.layer_swap.layer_stats("range", [name])[name]
    due = (subject.layer_swap.weight_of(name).square() * seen.rms.square()).sum(0).sqrt()
    torch.testing.assert_close(survey(config, subject)[0].scores, due)
