"""Prune page: fewer parameters."""

from pages.widgets.technique_page import technique_page

technique_page("Pruning: fewer parameters", "pruning", "prune")
