"""Quality of held-out examples."""

from engine.training import (
    Quality,
)


def test_perplexities_are_shares_the_other_way_round():
    assert Quality("accuracy", 0.45).relative_to(Quality("accuracy", 0.9)) == 0.5
    assert Quality("perplexity", 20.0).relative_to(Quality("perplexity", 10.0)) == 0.5
    assert Quality("accuracy", 0.0).relative_to(Quality("accuracy", 0.0)) == 0.0
