"""Every technique on a simulated CUDA device: no operation mixes devices, and results equal the
CPU's.
"""

import pytest
import torch

from engine.config.registry import TECHNIQUES
from engine.pipeline import run as running
from engine.pipeline.run import run
from tests import gpu_check
from tests.cases import for_each
from tests.recipes import recipe_for, task_for
from tests.simulated_cuda import SimulatedCudaTensor, simulated_cuda
from tests.steps import ANY, CONVOLUTIONAL
from tests.tiny import tiny

ALIKE = {  # settings with the same code path as others here
    "rounding-asymmetric-3",
    "rounding-tensor",
    "rounding-input-channel",
    "fp4-double",
    "log-free",
    "codebook-huffman",
    "fp8-e5m2",
    "svd-rank",
    "low-rank-first",
    "mixed-by-name",
    "svd-llm-global",
    "bitnet-binary",
    "tucker-rank",
    "cp-rank",
    "tucker-energy",
    "cp-recovered",
}
SMALLER = {  # measures the model once for each layer and choice
    "mixed-precision": {"technique": "mixed-precision", "budget": 6.0, "choices": [4, 8]}
}
SEVERAL_BLOCKS = ("blocks", "distill")  # techniques that remove blocks


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Tiny models; ``llama`` has one block, as each operation on the simulated device is slow."""
    return {
        "llama": tiny("llama", tmp_path_factory.mktemp("llama"), num_hidden_layers=1),
        "deep-llama": tiny("llama", tmp_path_factory.mktemp("deep-llama")),
        "resnet": tiny("resnet", tmp_path_factory.mktemp("resnet")),
    }


@pytest.fixture(autouse=True)
def no_written_texts(monkeypatch):
    """Disable sampled continuations, which take most of a tiny run's time."""
    monkeypatch.setattr(running, "sample_rows", lambda *_: [])


def summaries(architecture, folder, data, step, **fields):
    """Summaries of the same recipe on the simulated device and on the CPU."""
    task = task_for(architecture, data)
    task |= (
        {"context": 32, "tokens": 64} if task["kind"] == "language-modeling" else {"samples": 12}
    )
    recipe = recipe_for(architecture, folder, data, step, task=task, dtype="float32", **fields)
    with simulated_cuda():
        simulated = run(recipe.model_copy(update={"device": "cuda"})).summary
    return simulated, run(recipe).summary


@for_each("name", [name for name in ANY if name not in ALIKE])
def test_a_language_model_on_one_device_gives_the_numbers_of_the_cpu(name, folders, tmp_path):
    step = SMALLER.get(name, ANY[name])
    model = "deep-llama" if step["technique"] in SEVERAL_BLOCKS else "llama"
    simulated, on_cpu = summaries("llama", folders[model], tmp_path / "data", step)
    assert simulated.device.startswith("cuda") and on_cpu.device == "cpu"
    assert simulated.result.size_bytes == on_cpu.result.size_bytes
    assert simulated.result.loss == pytest.approx(on_cpu.result.loss, rel=1e-3)


@for_each(
    "name",
    [
        *(name for name in CONVOLUTIONAL if name not in ALIKE),
        "rounding",
        "gptq",
        "qat",
        "structured",
    ],
)
def test_an_image_classifier_on_one_device_gives_the_numbers_of_the_cpu(name, folders, tmp_path):
    simulated, on_cpu = summaries(
        "resnet", folders["resnet"], tmp_path / "data", (ANY | CONVOLUTIONAL)[name]
    )
    assert simulated.result.size_bytes == on_cpu.result.size_bytes
    assert simulated.result.loss == pytest.approx(on_cpu.result.loss, rel=1e-3)


def test_the_simulation_refuses_what_cuda_refuses():
    with simulated_cuda():
        here, there = torch.ones(3), torch.ones(3, device="cuda")
        assert (
            isinstance(there, SimulatedCudaTensor) and there.is_cuda and there.device.type == "cuda"
        )
        for mixing in (
            lambda: here + there,
            lambda: there.add_(here),
            lambda: torch.cat([there, here]),
            lambda: torch.where(there > 0, there, here),
        ):
            with pytest.raises(RuntimeError, match="two devices"):
                mixing()
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()


def test_the_simulation_allows_what_cuda_allows():
    with simulated_cuda():
        there = torch.arange(4.0, device="cuda")
        assert (there + torch.tensor(1.0)).tolist() == [1, 2, 3, 4]
        assert there[torch.tensor([2, 0])].tolist() == [2, 0]
        assert torch.zeros(4).copy_(there).tolist() == there.to("cpu").tolist() == [0, 1, 2, 3]
        assert not isinstance(there.to("cpu"), SimulatedCudaTensor)


def test_a_copy_on_the_simulated_device_shares_no_memory():
    with simulated_cuda():
        here = torch.zeros(2)
        there = here.to("cuda")
        there.add_(1)
        assert here.tolist() == [0, 0] and there.cpu().tolist() == [1, 1]


def test_gradients_flow_on_the_simulated_device():
    with simulated_cuda():
        layer = torch.nn.Linear(3, 2).to("cuda")
        layer(torch.ones(1, 3, device="cuda")).sum().backward()
        assert layer.weight.grad.device.type == "cuda" and layer.weight.grad.tolist() == [
            [1, 1, 1],
            [1, 1, 1],
        ]


@for_each("step", gpu_check.FAMILIES.values(), ids=gpu_check.FAMILIES)
def test_steps_of_the_gpu_check_are_valid(step):
    assert TECHNIQUES[step["technique"]](**step)
