from bitsandbytes.optim import PagedAdamW8bit
from torch import nn

from engine.training import TrainingConfig
from engine.training.loop import make_optimizer


def test_it_is_bitsandbytes_own_with_the_groups_of_the_other():
    model = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))
    plain, paged = (
        make_optimizer(model, TrainingConfig(10, 1e-3, 4, paged=paged)) for paged in (False, True)
    )
    assert (
        isinstance(paged, PagedAdamW8bit)
        and paged.is_paged
        and not isinstance(plain, PagedAdamW8bit)
    )
    for one, other in zip(plain.param_groups, paged.param_groups, strict=True):
        assert [id(each) for each in one["params"]] == [id(each) for each in other["params"]]
        assert all(one[name] == other[name] for name in ("weight_decay", "pace", "betas", "eps"))
