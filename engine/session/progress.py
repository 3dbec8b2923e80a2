"""How far a run is, and how long it may still take."""

from dataclasses import dataclass, field, replace
from time import time

STAGES = ("Measuring the original", "Reading calibration data", "Compressing", "Measuring the result", "Writing examples")


@dataclass(frozen=True)
class Progress:
    """One stage at a time. ``seen`` keeps the seconds of the stages before, to foretell those to come."""

    stage: str = "Waiting for its turn"
    done: int = 0
    total: int = 0
    began: float = field(default_factory=time)  # of the stage, seconds since 1970
    now: float = field(default_factory=time)
    seen: dict[str, float] = field(default_factory=dict)

    def after(self, event: dict) -> "Progress":
        """The progress once a worker's message has arrived."""
        news = {"done": event["done"], "total": event["total"], "now": event["time"]}
        if event["stage"] == self.stage:
            return replace(self, **news)
        return replace(self, **news, stage=event["stage"], began=event["time"], seen=self.seen | {self.stage: event["time"] - self.began})

    @property
    def share(self) -> float:
        """Of the stage, 0 to 1."""
        return min(1.0, self.done / self.total) if self.total else 0.0

    @property
    def overall(self) -> float:
        """Of the whole run, 0 to 1, stages counted alike."""
        place = STAGES.index(self.stage) if self.stage in STAGES else 0
        return min(1.0, (place + self.share) / len(STAGES))

    @property
    def seconds_left(self) -> float | None:
        """Of this stage from its own pace, plus the final measurement, which takes what the first one took. None: too early to say."""
        if self.share < 0.02:
            return None
        left = (self.now - self.began) / self.share * (1 - self.share)
        ahead = self.stage not in STAGES[3:]
        return left + (self.seen.get(STAGES[0], 0.0) if ahead and self.stage != STAGES[0] else (left + self.now - self.began if ahead else 0.0))

    def sentence(self) -> str:
        """Such as "Compressing · 12 of 28 · about 9 s left"."""
        counted = f" · {self.done} of {self.total}" if self.total else ""
        left = self.seconds_left
        return self.stage + counted + (f" · about {duration(left)} left" if left is not None else "")


def duration(seconds: float) -> str:
    whole = max(1, round(seconds))
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"
