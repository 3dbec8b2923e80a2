"""Numbers as people read them."""

from pages.formatting.numbers import UNKNOWN, change, count, duration, megabytes, percent
from tests.cases import for_each

NAN = float("nan")


@for_each(
    ("written", "read"),
    [
        (megabytes(10_400_000), "10.4 MB"),
        (megabytes(0), "0 B"),
        (megabytes(512), "512 B"),
        (megabytes(3_100), "3.1 kB"),
        (megabytes(999_960), "1.0 MB"),
        (megabytes(104_400_000), "104 MB"),
        (megabytes(13_476_838_400), "13.5 GB"),
        (percent(0.031), "3.1%"),
        (percent(0), "0%"),
        (percent(1), "100%"),
        (percent(0.00042), "0.042%"),
        (percent(0.634), "63.4%"),
        (change(18.3, 18.9), "+3.3%"),
        (change(20, 10), "-50.0%"),
        (change(5, 5), "±0%"),
        (change(-2, -1), "+50.0%"),
        (duration(9.2), "9 s"),
        (duration(0.42), "0.4 s"),
        (duration(125), "2 min 5 s"),
        (duration(59.7), "1 min"),
        (duration(3720), "1 h 2 min"),
        (count(5_200_000), "5.2 M"),
        (count(812), "812"),
        (count(12_300), "12.3 k"),
        (count(7_240_000_000), "7.2 B"),
    ],
)
def test_numbers_read_as_people_write_them(written, read):
    assert written == read


@for_each(
    "words",
    [
        megabytes(NAN),
        percent(NAN),
        duration(NAN),
        count(NAN),
        change(NAN, 1),
        change(1, NAN),
        change(0, 1),
    ],
)
def test_unknown_is_a_dash(words):
    assert words == UNKNOWN


@for_each("size", [1, 999, 1000, 999_499, 999_500, 10**9, 10**14])
def test_no_size_needs_four_digits_below_terabytes(size):
    assert len(megabytes(size).split()[0].replace(".", "")) <= 3
