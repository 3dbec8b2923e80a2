"""A benchmark that was stopped goes on where it ended, and compares the same windows."""

from dataclasses import asdict, replace

import pytest

from engine.config.registry import TECHNIQUES
from engine.config.technique import Technique
from tests.benchmarks import defaults
from tests.benchmarks.default_options import GROUPS
from tests.benchmarks.resumable import append_line, stored_lines
from tests.cases import for_each

GROUP = "gptq-range-3"


@pytest.fixture
def measured_settings(monkeypatch):
    """Settings that were really measured; each loses more than the one before."""
    asked = []

    def fake_result(result, protocol):
        asked.append(result.setting)
        return replace(result, each=[2.0 + len(asked), 3.0 + 2 * len(asked)], bits=3.5, seconds=1.0)

    monkeypatch.setattr(defaults, "measured_result", fake_result)
    return asked


def test_a_rerun_measures_what_is_missing_and_shows_everything(measured_settings, tmp_path):
    path, protocol = tmp_path / "defaults.jsonl", defaults.Protocol()
    first = list(defaults.rows([GROUP], protocol, path))
    assert (
        measured_settings == list(GROUPS[GROUP].settings)
        and list(defaults.rows([GROUP], protocol, path)) == first
    )
    path.write_text(path.read_text()[:-20])  # killed while it wrote the last setting
    again = list(defaults.rows([GROUP], protocol, path))
    assert again[0] == first[0] and len(again) == len(first)
    assert len(measured_settings) == len(first) + 1 and len(stored_lines(path)) == len(first)


def test_another_protocol_or_default_is_measured_again(measured_settings, tmp_path):
    path = tmp_path / "defaults.jsonl"
    list(defaults.rows([GROUP], defaults.Protocol(), path))
    known = len(measured_settings)
    list(defaults.rows([GROUP], defaults.Protocol(tokens=1024), path))
    assert len(measured_settings) == 2 * known
    lines = stored_lines(path)
    path.unlink()
    for line in lines:
        append_line(path, line | {"steps": [step | {"damping": 0.5} for step in line["steps"]]})
    list(defaults.rows([GROUP], defaults.Protocol(), path))
    assert len(measured_settings) == 3 * known


def test_differences_are_paired(measured_settings):
    first, second = defaults.results_of(GROUP, defaults.Protocol(), None)
    assert first.each == [3.0, 5.0] and second.each == [4.0, 7.0]
    assert defaults.difference(second, first) == "+150.00 ± 50.00%" and not defaults.difference(
        first, first
    )
    assert asdict(second)["setting"] == {"range": "absmax"}


def test_patterns_choose_groups():
    assert defaults.chosen_groups([]) == list(GROUPS)
    assert defaults.chosen_groups(["gptq-range-?"]) == [
        "gptq-range-2",
        "gptq-range-3",
        "gptq-range-4",
    ]
    assert not defaults.chosen_groups(["nothing-*"])


@for_each("name", GROUPS)
def test_every_setting_of_every_group_is_a_recipe_and_the_first_is_the_default(name):
    protocol = defaults.Protocol()
    for setting in GROUPS[name].settings:
        assert len(defaults.recipe_of(GROUPS[name], setting, protocol).steps) >= bool(
            GROUPS[name].base
        )
    if technique := GROUPS[name].base.get("technique"):
        usual: Technique = TECHNIQUES[technique]()
        assert {option: getattr(usual, option) for option in GROUPS[name].settings[0]} == GROUPS[
            name
        ].settings[0]
