"""Workload of the lottery-ticket experiment: many networks are trained."""

from engine.step.workload import TrainingWork
from engine.techniques.hooks import training_work
from engine.techniques.pruning.lottery_ticket.config import LotteryTicket


@training_work.register
def training_work_lottery_ticket(config: LotteryTicket) -> TrainingWork:
    """Besides the network in training, its initial weights, those of its control, and those to
    rewind to are in memory.
    """
    return TrainingWork(
        config.trainings * config.steps + config.seeds * config.rewind_step,
        config.batch,
        evaluations=config.trainings,
        copies=9.0,
    )
