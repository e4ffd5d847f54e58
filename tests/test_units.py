"""Do sizes, times, frequencies and addresses read exactly, print canonically, and refuse what they are not?"""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmsim.base.errors import InputError
from vmsim.base.units import (
    PAGE,
    PAGE_BYTES,
    PAGE_ORDER,
    PAGE_SHIFT,
    Duration,
    format_address,
    format_frequency,
    format_size,
    is_canonical,
    parse_address,
    parse_duration,
    parse_frequency,
    parse_page_size,
    parse_size,
    seconds,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GiB", 2 * 1024**3),
        ("4KiB", 4096),
        ("1.5 MiB", 3 * 512 * 1024),
        ("2GB", 2_000_000_000),
        ("7kB", 7000),
        ("64B", 64),
        ("4096", 4096),
        (4096, 4096),
        ("3TiB", 3 * 1024**4),
    ],
)
def test_a_size_is_its_bytes(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["2Gb", "2gib", "-1GiB", "", "GiB", "1e3", "0.3KiB", 2.5, True, None, -4, "٣GiB"])
def test_what_is_no_size_is_refused_with_an_example(text: object) -> None:
    with pytest.raises(InputError, match=r"is not a size; write for example \"2GiB\"") as error:
        parse_size(text)
    assert repr(text) in str(error.value)


@given(st.integers(0, 2**56))
def test_a_size_survives_printing(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(st.integers(1, 2**56))
def test_a_size_prints_in_the_largest_unit_that_divides_it(size: int) -> None:
    scale = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
    text = format_size(size)
    unit = text.lstrip("0123456789")
    larger = [s for s in scale.values() if s > scale[unit]]
    assert size % scale[unit] == 0
    assert all(size % s for s in larger)


def test_page_sizes_agree_with_their_orders() -> None:
    assert PAGE == 1 << PAGE_SHIFT == 4096
    assert dict(PAGE_ORDER) == {"4K": 0, "2M": 9, "4M": 10, "1G": 18}
    assert dict(PAGE_BYTES) == {"4K": 2**12, "2M": 2**21, "4M": 2**22, "1G": 2**30}


@pytest.mark.parametrize(("text", "page"), [("4K", "4K"), ("2MiB", "2M"), ("4MiB", "4M"), (2**30, "1G")])
def test_a_page_size_has_one_name(text: object, page: str) -> None:
    assert parse_page_size(text) == page


@pytest.mark.parametrize("text", ["8K", "4k", "", 0, True, None, "2MB", [], {}])
def test_other_page_sizes_are_refused(text: object) -> None:
    with pytest.raises(InputError, match=r'is not a page size; write "4K", "2M", "1G", or "4M"'):
        parse_page_size(text)


@pytest.mark.parametrize(
    ("text", "frequency", "cycles"),
    [
        ("50us", 2_000_000_000, 100_000),
        ("0.3us", 3_000_000_000, 900),
        ("1ms", 3_300_000_000, 3_300_000),
        ("3s", 1, 3),
        ("200cycles", 12345, 200),
        ("1cycle", 12345, 1),
        ("2µs", 1_000_000, 2),
        ("1ns", 2_500_000_000, 2),  # 2.5 is rounded to the even neighbour
        (0, 10**9, 0),
    ],
)
def test_a_duration_is_its_cycles(text: object, frequency: int, cycles: int) -> None:
    assert parse_duration(text).cycles(frequency) == cycles


@pytest.mark.parametrize("text", ["50", 50, "1m", "0.5cycles", "-1s", "1 hour", "", None, 1.5, False])
def test_what_is_no_duration_is_refused_with_an_example(text: object) -> None:
    with pytest.raises(InputError, match=r"is not a duration; write for example \"50us\""):
        parse_duration(text)


decimals = st.builds(lambda n, d: Fraction(n, 10**d), st.integers(0, 10**6), st.integers(0, 15))


@given(st.builds(Duration, decimals) | st.builds(lambda n: Duration(Fraction(n), "cycles"), st.integers(1, 10**15)))
def test_a_duration_survives_printing(duration: Duration) -> None:
    assert parse_duration(str(duration)) == duration


@given(st.integers(0, 10**9), st.integers(1, 10**10))
def test_cycles_and_seconds_convert_without_loss(cycles: int, frequency: int) -> None:
    assert Duration(seconds(cycles, frequency)).cycles(frequency) == cycles


@pytest.mark.parametrize(
    ("text", "hertz"), [("2.1GHz", 2_100_000_000), ("800MHz", 800_000_000), (5, 5), ("3311.94MHz", 3_311_940_000)]
)
def test_a_frequency_is_its_hertz(text: object, hertz: int) -> None:
    assert parse_frequency(text) == hertz


@pytest.mark.parametrize("text", ["2.1Ghz", "0GHz", 0, "1.5Hz", "fast", None])
def test_what_is_no_frequency_is_refused_with_an_example(text: object) -> None:
    with pytest.raises(InputError, match=r"is not a frequency; write for example \"2\.1GHz\""):
        parse_frequency(text)


@given(st.integers(1, 10**11))
def test_a_frequency_survives_printing(frequency: int) -> None:
    assert parse_frequency(format_frequency(frequency)) == frequency


@given(st.integers(0, 2**64 - 1))
def test_an_address_survives_printing(address: int) -> None:
    assert parse_address(format_address(address)) == address


@pytest.mark.parametrize("text", ["0x", "0xg", "-1", -1, 2**64, "0x1_0000_0000_0000_0000", 1.0, True, None, "__"])
def test_what_is_no_address_is_refused_with_an_example(text: object) -> None:
    with pytest.raises(InputError, match=r"is not an address; write for example \"0x10_0000_0000\""):
        parse_address(text)


@given(st.integers(0, 2**64 - 1), st.sampled_from([48, 57]))
def test_canonical_means_the_upper_bits_are_equal(address: int, bits: int) -> None:
    upper = f"{address:064b}"[: 64 - bits + 1]
    signed = address - 2**64 if address >= 2**63 else address
    assert is_canonical(address, bits) == (len(set(upper)) == 1)
    assert is_canonical(signed, bits) == is_canonical(address, bits)
