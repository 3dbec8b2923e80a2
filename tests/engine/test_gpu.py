"""Tests that need a GPU; skipped with the reason if there is none."""

import pytest
import torch

from engine.pipeline.run import run
from tests.cases import for_each
from tests.recipes import recipe_for
from tests.steps import ANY, STEPS
from tests.tiny import tiny

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]
ON_GPU, ON_CPU = {"device": "cuda", "dtype": "float32"}, {"device": "cpu"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {
        name: tiny(name, tmp_path_factory.mktemp(name))
        for name in ("llama", "gpt2", "bert", "resnet")
    }


def summary_of(architecture, folders, tmp_path, step, **where):
    return run(
        recipe_for(architecture, folders[architecture], tmp_path / "data", step, **where)
    ).summary


# of architectures beside the first, one for each way
SOME = ("rounding", "nf4", "gptq", "wanda", "structured", "svd-llm", "qat", "qlora")
STEPS_OF = {"llama": ANY, "gpt2": SOME, "bert": SOME, "resnet": SOME}


@for_each(
    ("architecture", "step"),
    [(architecture, step) for architecture, steps in STEPS_OF.items() for step in steps],
)
def test_a_gpu_gives_the_numbers_of_the_cpu(architecture, step, folders, tmp_path):
    on_gpu, on_cpu = (
        summary_of(architecture, folders, tmp_path, ANY[step], **where)
        for where in (ON_GPU, ON_CPU)
    )
    assert on_gpu.device == "cuda"
    # Huffman codes and outlier columns depend on the numbers
    assert on_gpu.result.size_bytes == pytest.approx(on_cpu.result.size_bytes, rel=0.02)
    assert on_gpu.baseline.loss == pytest.approx(on_cpu.baseline.loss, rel=1e-4)
    assert on_gpu.result.loss == pytest.approx(on_cpu.result.loss, rel=1e-2)


@pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 0),
    reason="tensor cores skip zeros from Ampere on",
)
def test_two_of_every_four_are_timed_on_tensor_cores(tmp_path):
    """In layers of 64 channels and more; these tensor cores take no narrower ones."""
    wide = tiny("llama", tmp_path / "wide", hidden_size=128, intermediate_size=256)
    step = {"technique": "magnitude", "pattern": "2:4", "storage": "n-of-m"}
    rows = run(
        recipe_for(
            "llama", wide, tmp_path / "data", step, device="cuda", dtype="float16", speed=True
        )
    ).tables.latency
    assert rows.kernel.str.contains("2:4").any()


def test_auto_means_the_gpu_in_bfloat16(folders, tmp_path):
    summary = summary_of("llama", folders, tmp_path, STEPS["rounding"], device="auto")
    assert summary.device == "cuda"
    assert summary.protocol.compute_dtype == "bfloat16"
