"""Quantize: fewer bits a weight."""

from pages.parts.technique_page import technique_page

technique_page("Quantize: fewer bits for every weight", "quantization", "quantize")
