"""Traces of a figure by their names."""


def trace(figure, name: str):
    return next(t for t in figure.data if t.name and name in t.name)


def trace_named(figure, name: str):
    return next(t for t in figure.data if t.name == name)
