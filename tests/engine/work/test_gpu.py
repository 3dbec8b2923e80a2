"""What must hold where there is a GPU; skipped, with the reason, where there is none."""

import pytest
import torch

from engine.recipe import Recipe
from engine.work.run import run
from tests.tiny import tiny

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")]
STEPS = [
    {"technique": "round-to-nearest", "bits": 3},
    {"technique": "bitsandbytes", "double_quantization": True},
    {"technique": "bitsandbytes", "format": "int8"},
]


@pytest.fixture
def model(tmp_path):
    return str(tiny("llama", tmp_path / "llama"))


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("The weights of a layer are rounded to four bits and kept. " * 200)
    return str(path)


def outcome(model, text, step, **where):
    task = {"kind": "language-modeling", "text": text, "context": 64, "tokens": 1024}
    return run(Recipe.of({"model": model, "task": task, "steps": [step], **where}))


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.get("format", step["technique"]))
def test_a_gpu_gives_the_numbers_of_the_cpu(model, text, step):
    on_gpu, on_cpu = outcome(model, text, step, device="cuda", dtype="float32"), outcome(model, text, step, device="cpu")
    assert on_gpu.summary.device == "cuda"
    assert on_gpu.summary.result.size_bytes == on_cpu.summary.result.size_bytes
    assert on_gpu.summary.result.loss == pytest.approx(on_cpu.summary.result.loss, rel=1e-3)


def test_auto_means_the_gpu_in_bfloat16(model, text):
    summary = outcome(model, text, STEPS[0]).summary
    assert summary.device == "cuda"
    assert summary.protocol.compute_dtype == "bfloat16"
