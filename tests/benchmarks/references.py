"""The reference implementations at work, run by ``against.py`` with their own environment's Python:
nothing of ours is imported.

The last line printed is JSON: seconds, CPU seconds, peak memory in MB, and the file that the dense
weights were written to.
"""

import json
import resource
import sys
from importlib import import_module
from pathlib import Path
from time import perf_counter, process_time

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM


def llm_compressor(
    model: torch.nn.Module, windows: torch.Tensor, step: dict
) -> dict[str, torch.Tensor]:
    from datasets import Dataset
    from llmcompressor import oneshot

    config = gptq(step) if step["technique"] == "gptq" else pruning(step)
    data = Dataset.from_dict(
        {"input_ids": windows.tolist(), "attention_mask": torch.ones_like(windows).tolist()}
    )
    oneshot(
        model=model,
        dataset=data,
        recipe=config,
        max_seq_length=windows.shape[1],
        num_calibration_samples=len(windows),
        shuffle_calibration_samples=False,
        pipeline="sequential",
        batch_size=step.get("batch_size", 8),
    )
    return {f"{name}.weight": module.weight.detach() for name, module in linears(model)}


def gptq(step: dict):
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from llmcompressor.modifiers.gptq import GPTQModifier

    args = QuantizationArgs(
        num_bits=step["bits"], symmetric=True, strategy="group", group_size=step["group_size"]
    )
    return GPTQModifier(
        config_groups={"all": QuantizationScheme(targets=["Linear"], weights=args)},
        ignore=["lm_head"],
        actorder=None,
    )


def pruning(step: dict):
    from llmcompressor.modifiers import pruning

    modifier = {"sparsegpt": pruning.SparseGPTModifier, "wanda": pruning.WandaPruningModifier}[
        step["technique"]
    ]
    return modifier(
        sparsity=step.get("sparsity", 0.5),
        mask_structure=step.get("pattern", "0:0"),
        targets=["Linear"],
        ignore=["lm_head"],
    )


def bitsandbytes(
    model: torch.nn.Module, windows: torch.Tensor, step: dict
) -> dict[str, torch.Tensor]:
    from bitsandbytes.functional import quantize_4bit

    return {
        f"{name}.weight": quantize_4bit(module.weight.detach(), blocksize=64, quant_type="nf4")
        for name, module in linears(model)
    }


def hqq(model: torch.nn.Module, windows: torch.Tensor, step: dict) -> dict[str, torch.Tensor]:
    from hqq.core.quantize import Quantizer

    config = {"nbits": step["bits"], "group_size": step["group_size"], "axis": 1, "device": "cpu"}
    return {
        f"{name}.weight": Quantizer.quantize(module.weight.detach(), **config)
        for name, module in linears(model)
    }


def dense(technique: str, stored: dict) -> dict[str, torch.Tensor]:
    """Dequantized weight. bitsandbytes does not correctly dequantize rows that its blocks do not
    divide on a CPU; flattened ones are correct.
    """
    if technique == "bitsandbytes":
        from bitsandbytes.functional import dequantize_4bit

        return {name: dequantize_4bit(codes, state) for name, (codes, state) in stored.items()}
    if technique == "hqq":
        from hqq.core.quantize import Quantizer

        return {
            name: Quantizer.dequantize(codes, meta | {"compute_dtype": torch.float32})
            for name, (codes, meta) in stored.items()
        }
    return stored


def linears(model: torch.nn.Module) -> list[tuple[str, torch.nn.Linear]]:
    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    ]


BY_LLM_COMPRESSOR = ("gptq", "sparsegpt", "wanda")
LIBRARIES = dict.fromkeys(BY_LLM_COMPRESSOR, "llmcompressor") | {
    "bitsandbytes": "bitsandbytes.functional",
    "hqq": "hqq.core.quantize",
}
TECHNIQUES = dict.fromkeys(BY_LLM_COMPRESSOR, llm_compressor) | {
    "bitsandbytes": bitsandbytes,
    "hqq": hqq,
}

if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    technique = asked["step"]["technique"]
    torch.set_num_threads(asked["threads"])
    model = AutoModelForCausalLM.from_pretrained(asked["model"], dtype=torch.float32).eval()
    windows = load_file(asked["windows"])["calibration"]
    import_module(LIBRARIES[technique])  # loading it is not compressing
    began, used = perf_counter(), process_time()
    stored = TECHNIQUES[technique](model, windows, asked["step"])
    took = {"seconds": perf_counter() - began, "cpu": process_time() - used}
    took["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    path = Path(asked["windows"]).with_name("theirs.safetensors")
    save_file({name: value.contiguous() for name, value in dense(technique, stored).items()}, path)
    print(json.dumps(took | {"weights": str(path)}), flush=True)
