"""Weights of a small part of a layer, by their values before training."""

from engine.results.schema.explanations import Explanation
from engine.step.compressed_layer import CompressedLayer
from engine.techniques.hooks import explanation
from engine.techniques.pruning.explain import removed_weights
from engine.techniques.pruning.lottery_ticket.config import LotteryTicket


@explanation.register
def explanation_lottery_ticket(config: LotteryTicket, compressed: CompressedLayer) -> Explanation:
    return removed_weights(compressed)
