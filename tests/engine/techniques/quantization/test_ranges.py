import math

import pytest
import torch

from engine.techniques.quantization.ranges import saturation_threshold


def merged_divergence(counts: list[float], kept: int, levels: int) -> float:
    """TensorRT's, bin by bin: those beyond go into the last one; each level's weights are spread
    over its bins that hold any.
    """
    p, q = counts[:kept], []
    p[-1] += sum(counts[kept:])
    for level in range(levels):
        part = counts[level * kept // levels : (level + 1) * kept // levels]
        filled = sum(number > 0 for number in part)
        q += [sum(part) / filled if number else 0.0 for number in part]
    p, q = ([number / sum(each) for number in each] for each in (p, q))
    return sum(a * math.log(a / max(b, 1e-9)) for a, b in zip(p, q, strict=True) if a)


@pytest.mark.parametrize("bits", [2, 4])
def test_the_entropy_range_is_the_threshold_that_loses_least_information(bits):
    weight = torch.distributions.StudentT(2.0).sample((1, 4096)).clamp(-30, 30)
    levels, largest = 2 ** (bits - 1), weight.abs().max().item()
    counts = (
        weight.abs()
        .flatten()
        .mul(16 * levels / largest)
        .long()
        .clamp(max=16 * levels - 1)
        .bincount(minlength=16 * levels)
        .tolist()
    )
    lost = [
        merged_divergence([float(number) for number in counts], kept * levels, levels)
        for kept in range(1, 17)
    ]
    assert saturation_threshold(weight[None], levels).item() == pytest.approx(
        largest * (lost.index(min(lost)) + 1) / 16
    )
