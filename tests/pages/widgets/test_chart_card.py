from io import BytesIO

import pandas as pd

from pages.widgets.chart_card import csv_bytes


def test_no_cell_of_a_download_is_a_formula():
    table = pd.DataFrame(
        {
            "name": ["=1+1", "-2+3", "@x", "+y", "layer", ""],
            "value": [-1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        }
    )
    read = pd.read_csv(BytesIO(csv_bytes(table)), keep_default_na=False)
    assert (
        read.name.tolist() == ["'=1+1", "'-2+3", "'@x", "'+y", "layer", ""]
        and read.value.tolist() == table.value.tolist()
    )
