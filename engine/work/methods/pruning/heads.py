"""Attention heads: each is some rows of queries, keys and values, and some columns of the layer that reads it.

The width of a head stays, and so does the model's; where several heads share keys and values (grouped-query attention), either whole
groups go, or as many heads of every group.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from engine.catalog.structured import Structured
from engine.errors import PlainError
from engine.work.calibration.stream import lists_of_blocks
from engine.work.layers import Layer
from engine.work.methods.pruning.families import Family, Part, inside, runs
from engine.work.rebuilt import Subject
from engine.work.stored.shapes import HEAD_WIDTH

# the module that counts heads, its queries, keys and values, and what reads them: Llama and its like, OPT, ViT, DistilBERT, BERT
NAMES = (
    ("self_attn", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "self_attn.o_proj"),
    ("self_attn", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "self_attn.out_proj"),
    ("attention", ("attention.q_proj", "attention.k_proj", "attention.v_proj"), "attention.o_proj"),
    ("attention", ("attention.q_lin", "attention.k_lin", "attention.v_lin"), "attention.out_lin"),
    ("attention.self", ("attention.self.query", "attention.self.key", "attention.self.value"), "attention.output.dense"),
)
FUSED = ("attn", "attn.c_attn", "attn.c_proj")  # GPT-2: queries, keys and values are one layer's outputs, one after the other


@dataclass(frozen=True)
class Attention:
    """One block's attention. Layers may be one and the same, from different rows on."""

    block: str
    queries: Layer
    keys: Layer
    values: Layer
    reader: Layer
    width: int  # of a head
    begins: tuple[int, int, int] = (0, 0, 0)  # first rows of queries, keys and values

    @property
    def heads(self) -> int:
        return self.reader.shape[1] // self.width

    @property
    def groups(self) -> int:
        """Of heads that share keys and values."""
        return self.heads if self.queries is self.keys else self.keys.shape[0] // self.width

    @property
    def each(self) -> int:
        """Heads of one group."""
        return self.heads // self.groups

    def whole_groups(self) -> Family:
        wide, (q, k, v) = self.each * self.width, self.begins
        parts = (
            Part(self.queries.name, "outputs", runs(self.groups, wide, q)),
            Part(self.keys.name, "outputs", runs(self.groups, self.width, k)),
            Part(self.values.name, "outputs", runs(self.groups, self.width, v)),
            Part(self.reader.name, "inputs", runs(self.groups, wide)),
        )
        return Family(self.block, "head" if self.each == 1 else "key/value group", parts)

    def heads_of_each_group(self) -> Iterator[Family]:
        for group in range(self.groups):
            places = runs(self.each, self.width, group * self.each * self.width)
            parts = (Part(self.queries.name, "outputs", places), Part(self.reader.name, "inputs", places))
            yield Family(self.block, "head", parts, group * self.each)


def heads(subject: Subject, how: Structured) -> list[Family]:
    """Of every block whose attention has a known form. Raises PlainError where heads cannot go as evenly as was asked for."""
    found = attentions(subject)
    if how.together == "groups" or all(attention.each == 1 for attention in found):
        return [attention.whole_groups() for attention in found]
    if how.scope == "global":
        raise PlainError(
            "Heads that share keys and values can go evenly from each group only as a share of each layer; "
            "set Share taken of (scope) to each layer, or Heads that share keys and values (together) to groups."
        )
    return [family for attention in found for family in attention.heads_of_each_group()]


def attentions(subject: Subject) -> list[Attention]:
    layers = {layer.name: layer for layer in subject.original.layers}
    blocks = [block for blocks in lists_of_blocks(subject.original.model) for block in blocks]
    return [found for block in blocks if (found := attention_of(subject, block, layers))]


def attention_of(subject: Subject, block: str, layers: dict[str, Layer]) -> Attention | None:
    for counter, three, reader in NAMES:
        found, width = inside(block, layers, *three, reader), head_width(subject, f"{block}.{counter}")
        if found and width and fits(*found, width):
            return Attention(block, *found, width)
    counter, fused, reader = FUSED
    found, width = inside(block, layers, fused, reader), head_width(subject, f"{block}.{counter}")
    if found and width and found[0].shape[0] == 3 * found[1].shape[1]:
        one, all_heads = found[0], found[1].shape[1]
        return Attention(block, one, one, one, found[1], width, (0, all_heads, 2 * all_heads))
    return None


def head_width(subject: Subject, name: str) -> int:
    """As the module that counts heads has noted it; 0 where there is none."""
    module = dict(subject.original.model.named_modules()).get(name)
    return next((width for attribute in HEAD_WIDTH if (width := getattr(module, attribute, 0))), 0)


def fits(queries: Layer, keys: Layer, values: Layer, reader: Layer, width: int) -> bool:
    """Whether heads, all of one width, are all there is to these layers."""
    return queries.shape[0] == reader.shape[1] and keys.shape[0] == values.shape[0] and queries.shape[0] % keys.shape[0] == keys.shape[0] % width == 0
