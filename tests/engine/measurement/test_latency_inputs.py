import torch

from engine.measurement.latency_inputs import largest_inputs


def test_the_largest_batch_is_kept_with_what_else_was_given():
    class Model(torch.nn.Module):
        def forward(self, input_ids, use_cache):
            return input_ids

    model = Model()
    with largest_inputs(model) as inputs:
        for count in (1, 3, 2):
            model(input_ids=torch.zeros(count, 4), use_cache=False)
    model(input_ids=torch.zeros(9, 4), use_cache=False)
    assert len(inputs["input_ids"]) == 3 and inputs["use_cache"] is False
