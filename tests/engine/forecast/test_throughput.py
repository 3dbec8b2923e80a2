"""Throughput is measured in a few quick probes, on an idle or busy machine."""

import contextlib
import time
from dataclasses import replace

import pytest

from engine.forecast import throughput as paces
from engine.forecast.throughput import ForwardTiming, LayerTiming, best_of


def test_slow_probes_are_few_and_quick_ones_count_by_the_quickest(monkeypatch):
    took, clock = [], [0.0]

    def run():
        clock[0] += took.pop(0)

    for name in ("perf_counter", "process_time"):
        monkeypatch.setattr(paces.time, name, lambda: clock[0])
    took += [1, 1]
    assert best_of(run) == 1 and len(took) == 1, "one slow call is enough"
    took[:] = [0.1, 0.05, 0.2]
    assert best_of(run) == pytest.approx(0.05) and not took


def test_waiting_for_a_processor_does_not_count():
    seconds, result = paces.idle_seconds(lambda: time.sleep(0.3) or "result")
    assert seconds < 0.1 and result == "result"


def test_what_a_probe_found_is_good_for_a_while_only(monkeypatch):
    """A busy machine's paces would stand in every forecast until the app ends."""
    now, asked = [0.0], []
    monkeypatch.setattr(paces.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(
        paces,
        "measured_timing",
        lambda at, folder, length: asked.append(length) or ForwardTiming(length, now[0]),
    )
    probe = paces.cached_for_a_while(lambda what: asked.append(what) or now[0])
    for now[0], paced in ((0.0, 0.0), (paces.FRESH, 0.0), (paces.FRESH + 1, paces.FRESH + 1)):
        assert probe("layer") == paced and paces.forward_timing(
            ("model", id(asked)), None, None, 8
        ) == ForwardTiming(8, paced)
    assert asked == ["layer", 8, "layer", 8]


def test_wide_layers_are_reckoned_from_narrow_ones():
    narrow = LayerTiming(1, 2, 3, 4, 5, 6)
    assert narrow.scaled_to_width(2, 1) == LayerTiming(8, 4, 6, 8, 10, 12)
    assert narrow.scaled_to_width(2, 2) == replace(
        narrow.scaled_to_width(2, 1), scale=8, compress=12
    )


def test_threads_that_wait_for_each_other_do_not_count(monkeypatch):
    monkeypatch.setattr(paces.torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(paces, "one_thread", lambda: alone)
    taken, alone = [], contextlib.nullcontext()
    monkeypatch.setattr(paces, "best_of", lambda run: taken.pop(0))
    for two, one in ((30.0, 1.5), (1.0, 1.8)):
        taken += [two, one]
        assert paces.least_seconds(lambda: None) == min(two, one) and not taken
