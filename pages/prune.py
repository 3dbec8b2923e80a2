"""Prune: fewer weights."""

from pages.parts.technique_page import technique_page

technique_page("Prune: fewer weights", "pruning", "prune")
