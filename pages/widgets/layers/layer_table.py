"""Table of a model's layers."""

import pandas as pd
import streamlit as st


def layer_table(layers: pd.DataFrame) -> None:
    shown = layers[["name", "kind", "parameters", "block", "tied_to"]].assign(
        shape=[" × ".join(map(str, shape)) for shape in layers["shape"]],
        size=layers.original_bytes / 1000,
        bits=layers.bits_per_weight,
    )
    st.dataframe(
        shown[["name", "kind", "shape", "parameters", "size", "bits", "block", "tied_to"]],
        hide_index=True,
        width="stretch",
        column_config={
            "name": "Layer",
            "kind": "Kind",
            "shape": st.column_config.TextColumn("Shape", help="Output channels first."),
            "parameters": st.column_config.NumberColumn("Parameters", format="localized"),
            "size": st.column_config.NumberColumn(
                "Size (kB)", format="%.1f", help="0 if the tensor is counted in another layer."
            ),
            "bits": st.column_config.NumberColumn("Bits per weight", format="%.2f"),
            "block": "Block",
            "tied_to": st.column_config.TextColumn(
                "Tied to", help="Tied weights: one tensor, counted once."
            ),
        },
    )
