"""Workload of the experiment: each variant is evaluated."""

from engine.step.workload import SearchWork
from engine.techniques.hooks import search_work
from engine.techniques.quantization.salience.config import AWQSalience
from engine.techniques.quantization.salience.method import VARIANTS


@search_work.register
def search_work_awq_salience(config: AWQSalience, layers: int) -> SearchWork:
    """Each variant rounds every layer twice: for the evaluation and for its output error."""
    return SearchWork(evaluations=len(VARIANTS), roundings=2 * len(VARIANTS))
