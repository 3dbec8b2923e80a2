import pytest
import torch

from engine.calibration.gradient_stats import example_loss
from engine.techniques.implementations import survey
from engine.techniques.pruning.structured.config import Structured
from tests.structures import LAYERS, STEPS, plain, subject_of

CPU = torch.device("cpu")


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_heads_taylor_score_is_the_slope_by_a_gate_on_its_output(architecture, folders, tmp_path):
    subject = subject_of(architecture, folders, tmp_path, STEPS["heads-taylor"])
    scores = survey(Structured(what="heads", score="taylor"), subject)[0].scores
    model, (_, reader) = plain(architecture, folders[architecture]), LAYERS[architecture]
    gate = torch.ones(len(scores), requires_grad=True)
    hook = lambda module, args: (args[0] * gate.repeat_interleave(48 // len(scores)),)  # noqa: E731
    model.get_submodule(reader.format(0)).register_forward_pre_hook(hook)
    examples = [
        {"input_ids": row[None]}
        for batch in subject.layer_swap.batches
        for row in batch["input_ids"]
    ]
    slopes = [
        torch.autograd.grad(example_loss(model, example, CPU), gate)[0] for example in examples
    ]
    torch.testing.assert_close(scores, torch.stack(slopes).mean(0).abs(), rtol=1e-3, atol=1e-6)
