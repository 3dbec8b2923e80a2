"""An example of a technique in another package."""
