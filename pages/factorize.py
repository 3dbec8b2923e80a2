"""Factorize: smaller matrices whose product stands for a large one."""

from pages.parts.technique_page import technique_page

technique_page("Factorize: fewer directions", "low-rank", "factorize")
