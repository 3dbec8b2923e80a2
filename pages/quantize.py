"""Quantize page: fewer bits per weight."""

from pages.widgets.technique_page import technique_page

technique_page("Quantization: fewer bits per weight", "quantization", "quantize")
