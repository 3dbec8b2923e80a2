"""Ours against llm-compressor (GPTQ), bitsandbytes (NF4) and hqq. How: see ``against``."""

from tests.benchmarks.against import Contest, asked_for

ABSMAX = {"technique": "gptq", "bits": 4, "range": "absmax"}  # as llm-compressor has it
GPTQ = [
    Contest(
        f"GPTQ, 4 bits, groups of {size}",
        ABSMAX | {"group_size": size},
        "llm-compressor",
        "at least 1.4",
    )
    for size in (32, 128)
]
NF4 = Contest("NF4, blocks of 64", {"technique": "bitsandbytes"}, "bitsandbytes", "at least 1")
HQQ = Contest("HQQ, 4 bits, groups of 64", {"technique": "hqq", "bits": 4, "group_size": 64}, "hqq")

if __name__ == "__main__":
    asked_for([*GPTQ, NF4, HQQ])
