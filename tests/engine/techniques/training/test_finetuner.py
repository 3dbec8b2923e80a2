import pytest
import torch

from engine.errors import PlainError
from engine.pipeline.run import run
from engine.techniques.training.adapters.config import QLoRA
from engine.techniques.training.finetuner import check_paged_optimizer
from tests.recipes import recipe_for

CPU = torch.device("cpu")
SHORT = {"technique": "lora", "rank": 2, "steps": 3, "batch": 4, "rate": 1e-2, "look_every": 1}
PAGED = SHORT | {"technique": "qlora", "optimizer": "paged-8bit"}


def test_a_paged_optimizer_is_refused_before_the_run_where_there_is_no_gpu(folders, tmp_path):
    heard = []
    with pytest.raises(
        PlainError,
        match=(
            r"^The paged optimizer needs a CUDA device, and this run computes on the cpu; set "
            r"Optimizer \(optimizer\) to adamw"
        ),
    ):
        run(
            recipe_for("bert", folders["bert"], tmp_path / "data", PAGED),
            report=heard.append,
        )
    assert not any(event.stage == "measuring-original" for event in heard)
    check_paged_optimizer(QLoRA(optimizer="paged-8bit"), torch.device("cuda"))
    check_paged_optimizer(QLoRA(), CPU)
