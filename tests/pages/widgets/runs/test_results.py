from engine.results.schema.run_tables import Tables
from pages.widgets.runs.result_views import available_views
from pages.widgets.runs.results import default_view
from tests.runs import finished_record, tables


def test_a_run_opens_with_the_view_of_its_training_or_with_its_layers():
    assert (
        default_view(available_views(finished_record(), Tables.empty()), finished_record())
        == "Layers"
    )
    assert (
        default_view(available_views(finished_record(), tables()), finished_record()) == "Lottery"
    )
    only_curves = Tables(curves=tables().curves)
    assert (
        default_view(available_views(finished_record(), only_curves), finished_record()) == "Curves"
    )
