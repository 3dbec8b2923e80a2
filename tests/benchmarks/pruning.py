"""Ours against llm-compressor: SparseGPT and Wanda at 50 % and 2:4. How: see ``against``.

On a random model perplexity says nothing; name a trained one as the third argument to compare it.
"""

from tests.benchmarks.against import Contest, asked_for

SHARES = {"50 %": {"sparsity": 0.5}, "2:4": {"pattern": "2:4"}}
SPARSEGPT = [Contest(f"SparseGPT, {what}", {"technique": "sparsegpt"} | how, "llm-compressor", "at least 1.5") for what, how in SHARES.items()]
WANDA = [Contest(f"Wanda, {what}", {"technique": "wanda", "scope": "row"} | how, "llm-compressor") for what, how in SHARES.items()]

if __name__ == "__main__":
    asked_for([*SPARSEGPT, *WANDA])
