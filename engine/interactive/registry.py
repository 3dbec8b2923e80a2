"""Registry of the handlers that answer questions, by the question's type.

Importing this module does not import torch.
"""

from functools import singledispatch

from engine.queries import Answer, Query


@singledispatch
def answer(query: Query[Answer]) -> Answer:
    """Return the answer to a question; handlers register themselves with its type."""
    raise TypeError(f"No handler answers {type(query).__name__}.")
