"""Random Llamas in bfloat16 of any size, for what does not depend on the weights' values."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers.utils import logging

from tests.tiny import SENTENCES, tiny


@dataclass(frozen=True)
class Size:
    width: int
    inner: int
    blocks: int

    def save_model(self, folder: Path) -> Path:
        """The folder, now holding a model of this size and its tokenizer."""
        logging.disable_progress_bar()
        heads = self.width // 64
        shape = {
            "hidden_size": self.width,
            "intermediate_size": self.inner,
            "num_hidden_layers": self.blocks,
        }
        return tiny(
            "llama",
            folder,
            torch.bfloat16,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            **shape,
        )


def text_in(folder: Path) -> Path:
    """A text of some ten thousand tokens."""
    path = folder / "text.txt"
    path.write_text(" ".join(SENTENCES * 100), "utf8")
    return path
