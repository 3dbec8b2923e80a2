"""Train-aware: weights that learn on their grid, and adapters that recover what compression cost."""

from pages.parts.technique_page import technique_page

technique_page("Train-aware: learn to live with it", "training", "train")
