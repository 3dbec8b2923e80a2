"""Errors of tasks, as workers send them."""

import pytest

from engine.errors import Cancelled, PlainError
from engine.session.worker_tasks import with_plain_errors


def test_errors_of_tasks_have_no_context():
    """Its context would be pickled too, and unpickling a torch exception imports torch in the
    screen's process.
    """

    def breaks():
        raise LookupError("of a library")

    with pytest.raises(PlainError, match=r"LookupError: of a library") as error:
        with_plain_errors(breaks)
    assert error.value.__context__ is None and error.value.__cause__ is None


def test_errors_of_tasks_have_classes_that_need_no_torch():
    class Broken(PlainError):
        """Such as the error of a training, whose module imports torch."""

    class Stopped(Cancelled):
        """A cancellation with details."""

    for raised, kind in ((Broken, PlainError), (Stopped, Cancelled)):

        def breaks(raised=raised):
            raise raised("A sentence.")

        with pytest.raises(PlainError, match=r"^A sentence\.$") as error:
            with_plain_errors(breaks)
        assert type(error.value) is kind
