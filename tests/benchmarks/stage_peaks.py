"""The most memory that each stage of a run held."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from engine.events import ProgressEvent
from engine.runtime.platform_support import reset_peak

STATUS = Path("/proc/self/status")  # Linux only
SECONDS_BETWEEN_LOOKS = 0.005


@dataclass(frozen=True)
class Memory:
    resident: float  # MB, with pages of mapped files, which the system can drop
    own: float  # MB, without them

    def highest(self, other: "Memory") -> "Memory":
        return Memory(max(self.resident, other.resident), max(self.own, other.own))

    def since(self, before: "Memory") -> "Memory":
        return Memory(self.resident - before.resident, self.own - before.own)


def memory_in_use(resident: str = "VmRSS") -> Memory:
    kilobytes = dict(line.split(":") for line in STATUS.read_text().splitlines())
    return Memory(*(int(kilobytes[name].split()[0]) * 1024 / 1e6 for name in (resident, "RssAnon")))


@dataclass
class StagePeaks:
    """``report_stage`` is a run's report. The resident peak is the system's own, the other is the
    highest seen at looks 5 ms apart.
    """

    before: Memory = field(default_factory=memory_in_use)
    peaks: dict[str, Memory] = field(default_factory=dict)
    stage: str = "opening"

    def report_stage(self, event: ProgressEvent) -> None:
        if event.stage != self.stage:
            self.update_peak()
            self.stage = event.stage
            reset_peak()

    def update_peak(self) -> None:
        grown = memory_in_use("VmHWM").since(self.before)
        self.peaks[self.stage] = self.peaks.get(self.stage, grown).highest(grown)

    def overall_peak(self) -> Memory:
        return Memory(
            max(peak.resident for peak in self.peaks.values()),
            max(peak.own for peak in self.peaks.values()),
        )


@contextmanager
def watched_stages() -> Iterator[StagePeaks]:
    reset_peak()
    stages, over = StagePeaks(), threading.Event()

    def keep_looking() -> None:
        while not over.wait(SECONDS_BETWEEN_LOOKS):
            stages.update_peak()

    watcher = threading.Thread(target=keep_looking, daemon=True)
    watcher.start()
    try:
        yield stages
    finally:
        over.set()
        watcher.join()
        stages.update_peak()
