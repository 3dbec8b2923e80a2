from pages.panels.theme import PERCENT
from pages.panels.training.gradual_pruning import GRADUAL_PRUNING, gradual_pruning
from tests.pages.panels import tables
from tests.pages.panels.traces import trace_named


def test_every_moment_has_a_mark_of_its_kind():
    moments = tables.schedule()
    figure = gradual_pruning(moments)
    for event, name in (("before", "Before"), ("cut", "Just pruned"), ("trained", "Trained")):
        rows = moments[moments.event == event]
        mark = trace_named(figure, name)
        assert list(mark.x) == list(rows.step) and list(mark.y) == list(rows.quality)
    assert {each.name for each in figure.data} >= {"Just pruned", "Trained", "Zero weights"}


def test_sparsity_is_drawn_below_quality_and_holds_until_the_next_step():
    figure = gradual_pruning(tables.schedule())
    zeros = trace_named(figure, "Zero weights")
    assert zeros.yaxis == "y2" and zeros.line.shape == "hv"
    assert figure.layout.yaxis2.domain[1] < figure.layout.yaxis.domain[0]


def test_the_dashed_line_is_the_original():
    [line] = gradual_pruning(tables.schedule()).layout.shapes
    assert line.y0 == line.y1 == 0.98 and line.line.dash == "dash"


def test_an_accuracy_is_in_percent_and_a_perplexity_on_a_logarithmic_axis():
    accuracy, perplexity = (
        gradual_pruning(tables.schedule(name)).layout.yaxis for name in ("accuracy", "perplexity")
    )
    assert accuracy.tickformat == PERCENT and accuracy.type != "log"
    assert perplexity.type == "log" and perplexity.title.text.startswith("Perplexity")


def test_the_description_goes_from_the_first_moment_to_the_last():
    assert GRADUAL_PRUNING.describe(tables.schedule()) == (
        "In 30 training steps from accuracy 98.0% to accuracy 96.0% with 80.0% of the weights zero."
    )
