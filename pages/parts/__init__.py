"""Streamlit widgets that pages are put together from."""
