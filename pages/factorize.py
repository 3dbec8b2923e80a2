"""Factorize page: low-rank factorization."""

from pages.widgets.technique_page import technique_page

technique_page("Low-rank factorization", "low-rank", "factorize")
