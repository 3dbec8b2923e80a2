"""Lottery tickets: twins are as sparse as they are, and begin where the paper has them begin."""

import pytest
import torch

from engine.errors import Cancelled, PlainError
from engine.models.layers import selected_layers
from engine.models.loaded_model import load_model
from engine.models.loading import resolve_model
from engine.pipeline.run import run
from engine.recipe import Recipe
from engine.step.run_context import RunContext
from engine.techniques.pruning.lottery_ticket.config import LotteryTicket
from engine.techniques.pruning.lottery_ticket.method import LotteryExperiment
from engine.training import TrainingData, make_trainable
from tests.answers import forecast, lesson
from tests.recipes import recipe_for
from tests.tiny import tiny
from tests.training_examples import exercises

CPU = torch.device("cpu")
SHORT = {
    "technique": "lottery-ticket",
    "rounds": 2,
    "share": 0.5,
    "steps": 2,
    "seeds": 2,
    "batch": 4,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {name: tiny(name, tmp_path_factory.mktemp(name)) for name in ("llama", "bert", "resnet")}


@pytest.fixture(scope="module")
def lottery_run(folders, tmp_path_factory):
    data, save = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("saved") / "model"
    return run(recipe_for("resnet", folders["resnet"], data, SHORT), save=save), save


class Watched(LotteryExperiment):
    """Notes the weights, masked, from which each network was trained."""

    def train_network(self, variant, seed, number, begun=0):
        begins = {
            layer.name: (
                self.trainable.unmasked_weight(layer.name).clone(),
                self.trainable.mask(layer.name).clone(),
            )
            for layer in self.trainable.layers
        }
        self.begun = [*getattr(self, "begun", []), (variant, seed, number, begins)]
        return super().train_network(variant, seed, number, begun)


@pytest.fixture
def starting_weights(folders, tmp_path):
    def of(**asked):
        config, folder = LotteryTicket(**SHORT | asked), resolve_model(str(folders["resnet"]))
        at, recipe = (
            load_model(folder, CPU, torch.float32),
            recipe_for("resnet", folders["resnet"], tmp_path / "data", SHORT | asked),
        )
        trainable = make_trainable(folder, at, selected_layers(at.layers, recipe.layers), CPU)
        trainable.attach_masks()
        lottery = Watched(
            config,
            RunContext(recipe, folder),
            trainable,
            TrainingData(exercises("resnet"), exercises("resnet")),
        )
        lottery.run()
        return {(variant, seed, number): begins for variant, seed, number, begins in lottery.begun}

    return of


def test_every_seed_and_round_has_a_ticket_and_its_twins_of_one_share(lottery_run):
    rows = lottery_run[0].tables.lottery
    assert len(rows) == LotteryTicket(**SHORT).trainings == 14
    twins = rows[rows["round"] > 0].groupby(["seed", "round"])
    assert (twins.left.nunique() == 1).all() and (twins.variant.nunique() == 3).all()
    assert twins.left.first().groupby("round").first().tolist() == pytest.approx(
        [0.5, 0.25], abs=1e-2
    )
    assert rows.left[rows.variant == "dense"].tolist() == [1.0, 1.0]


def test_tickets_begin_at_the_first_weights_on_their_mask_and_twins_differ_in_one_thing(
    starting_weights,
):
    begins = starting_weights()
    for seed in (0, 1):
        first = begins["dense", seed, 0]
        for number in (1, 2):
            ticket, other, lot = (
                begins[variant, seed, number]
                for variant in ("winning ticket", "other first weights", "random mask")
            )
            for name, (weight, _) in first.items():
                assert (
                    torch.equal(ticket[name][0], weight)
                    and torch.equal(lot[name][0], weight)
                    and not torch.equal(other[name][0], weight)
                )
                assert (
                    torch.equal(ticket[name][1], other[name][1])
                    and ticket[name][1].sum() == lot[name][1].sum()
                )
            assert any(not torch.equal(ticket[name][1], lot[name][1]) for name in first)
            assert number == 1 or all(
                (ticket[name][1] <= begins["winning ticket", seed, 1][name][1]).all()
                for name in first
            )
    assert any(
        not torch.equal(begins["dense", 0, 0][name][0], begins["dense", 1, 0][name][0])
        for name in begins["dense", 0, 0]
    )


def test_rewinding_goes_back_to_an_early_step_and_not_to_the_first(starting_weights):
    first, late = starting_weights(seeds=1), starting_weights(seeds=1, rewind_step=1)
    moved = [
        not torch.equal(late["winning ticket", 0, 1][name][0], weight)
        for name, (weight, _) in first["dense", 0, 0].items()
    ]
    assert all(moved) and all(
        torch.equal(late["dense", 0, 0][name][0], weight)
        for name, (weight, _) in first["dense", 0, 0].items()
    )


def test_the_result_is_the_ticket_of_the_first_seeds_last_round(lottery_run, folders, tmp_path):
    outcome, save = lottery_run
    layers = outcome.tables.layers.dropna(subset="sparsity")
    assert layers.sparsity.tolist() == pytest.approx([0.75] * len(layers), abs=2e-2) and set(
        layers.technique
    ) == {"lottery-ticket"}
    again = run(recipe_for("resnet", save, tmp_path / "data")).summary.result
    assert (
        again.loss == outcome.summary.result.loss
        and again.size_bytes == outcome.summary.result.size_bytes
    )
    ahead = forecast(recipe_for("resnet", folders["resnet"], tmp_path / "data", SHORT))
    assert ahead.size_bytes == outcome.summary.result.size_bytes


def test_it_repeats_to_the_bit(lottery_run, folders, tmp_path):
    again = run(recipe_for("resnet", folders["resnet"], tmp_path / "data", SHORT))
    assert (
        again.tables.lottery.equals(lottery_run[0].tables.lottery)
        and again.summary.result.loss == lottery_run[0].summary.result.loss
    )


def test_texts_have_tickets_too_and_embeddings_stay(folders, tmp_path):
    outcome = run(
        recipe_for(
            "bert",
            folders["bert"],
            tmp_path / "data",
            SHORT | {"seeds": 1, "rounds": 1, "scope": "global"},
        )
    )
    layers = outcome.tables.layers
    assert (
        len(outcome.tables.lottery) == 4
        and (layers.technique[layers.kind == "embedding"] == "").all()
    )


def test_the_picture_is_of_the_trained_weights_cut_by_magnitude(folders, tmp_path):
    recipe = recipe_for("resnet", folders["resnet"], tmp_path / "data", SHORT).model_dump(
        mode="json"
    )
    measured = {name: recipe[name] for name in ("task", "calibration")}
    shown = lesson(
        str(folders["resnet"]),
        "resnet.encoder.stages.1.layers.0.layer.0.convolution",
        SHORT,
        measured,
    ).table
    assert shown.weight.abs()[shown.stays].min() >= shown.weight.abs()[~shown.stays].max()


def test_language_models_are_refused(folders, tmp_path):
    with pytest.raises(PlainError, match="which language models do not have; choose"):
        run(recipe_for("llama", folders["llama"], tmp_path / "data", SHORT))


def test_language_models_are_refused_in_the_forecast_already(folders, tmp_path):
    with pytest.raises(PlainError, match="which language models do not have; choose"):
        forecast(recipe_for("llama", folders["llama"], tmp_path / "data", SHORT))


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({"rewind_step": 2, "steps": 2}, r"\(rewind_step\) is 2, and training has 2 steps"),
        ({"storage": "n-of-m"}, "needs an N:M pattern"),
        ({"rounds": 0}, "from 1 to 20"),
    ],
)
def test_nonsense_is_refused_in_a_sentence(step, words):
    with pytest.raises(PlainError, match=words) as refused:
        Recipe.from_dict({"steps": [{"technique": "lottery-ticket", **step}]})
    assert "\n" not in str(refused.value)


def test_a_ticket_of_nothing_is_refused_before_training(folders, tmp_path):
    with pytest.raises(PlainError, match=r"^resnet\.\S+: No weight would be left"):
        run(
            recipe_for(
                "resnet", folders["resnet"], tmp_path / "data", SHORT | {"rounds": 10, "share": 0.9}
            )
        )


@pytest.mark.parametrize(
    ("networks", "left", "result"),
    [
        (2, 1.0, "the dense network"),
        (4, 0.5, "the winning ticket of round 1"),
        (8, 0.25, "the winning ticket of round 2"),
    ],
)
def test_a_canceled_lottery_keeps_finished_networks(
    networks, left, result, folders, tmp_path, lottery_run
):
    heard = []
    recipe = recipe_for("resnet", folders["resnet"], tmp_path / "data", SHORT)
    outcome = run(
        recipe,
        report=lambda event: heard.append(event.stage == "training" and event.network != ""),
        cancelled=lambda: sum(heard) > 2 * networks,
    )
    assert outcome.summary.ended_early and outcome.tables.lottery.equals(
        lottery_run[0].tables.lottery.iloc[:networks]
    )
    assert any(
        note.startswith(f"Training was ended after {networks} of 14 networks") and result in note
        for note in outcome.summary.notes
    )
    shares = outcome.tables.layers.sparsity.dropna()
    assert shares.tolist() == pytest.approx([1 - left] * len(shares), abs=2e-2)


def test_a_run_is_cancelled_while_it_trains(folders, tmp_path):
    heard = []
    with pytest.raises(Cancelled):
        recipe = recipe_for("resnet", folders["resnet"], tmp_path / "data", SHORT)
        run(
            recipe,
            report=lambda event: heard.append(event.stage == "training" and event.network != ""),
            cancelled=lambda: any(heard),
        )
    assert sum(heard) == 1
