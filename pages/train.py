"""Train page: quantization-aware training and low-rank adapters."""

from pages.widgets.technique_page import technique_page

technique_page("Quantization-aware training and adapters", "training", "train")
