"""The integer half step alone: what it keeps, what it packs, what it refuses."""

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from revdeq.arithmetic import Arithmetic, Bitwise, Floating, bits_per_component, bitwise_form, tape_size
from revdeq.arithmetic.packing import pack, packed_size, packing, unpack
from revdeq.arithmetic.tape import Tape


FORMS = [(m, sign) for m in (2, 3, 4, 5, 8) for sign in (1, -1)]
BETAS = [1.0 - sign / m for m, sign in FORMS]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
FIXED = settings(deadline=None, derandomize=True, max_examples=40)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbers(seed: int, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Numbers over many magnitudes, all of which the dtype holds."""
    g = generator(seed)
    spread = torch.randn(shape, generator=g, dtype=torch.float64) * 3
    return (torch.randn(shape, generator=g, dtype=torch.float64) * spread.exp2()).to(dtype)


def bits(state: object) -> torch.Tensor:
    integers = getattr(state, "integers", state)
    assert isinstance(integers, torch.Tensor)
    return integers.view(torch.int64) if integers.dtype == torch.float64 else integers


def steps_that_return(arithmetic: Arithmetic, beta: float, dtype: torch.dtype, seed: int, num_steps: int) -> int:
    """How many of the half steps, undone from the last, return the very bits from which they came."""
    start = numbers(seed, (3, 7), dtype)
    values = [numbers(seed + 1 + n, (3, 7), dtype) for n in range(num_steps)]
    state = arithmetic.fit(arithmetic.start(start.to(torch.float64), dtype, True, beta), values[0])
    before, remainders = [], []
    for n, value in enumerate(values):
        before.append(state)
        state, remainder = arithmetic.half_step(state, value, beta, n)
        remainders.append(remainder)
    returned = 0
    for n in reversed(range(num_steps)):
        state = arithmetic.undo_half_step(state, values[n], beta, remainders[n])
        returned += torch.equal(bits(state), bits(before[n]))
    return returned


@FIXED
@given(st.sampled_from(BETAS), st.sampled_from(DTYPES), st.integers(0, 2**20), st.integers(1, 40))
def test_t8_half_steps_undone_return_the_very_bits(beta, dtype, seed, num_steps):
    assert steps_that_return(Bitwise(), beta, dtype, seed, num_steps) == num_steps


@pytest.mark.parametrize("beta", BETAS)
def test_floating_half_steps_do_not_return_the_very_bits(beta):
    # The control of the test above: the same measurement on the plain arithmetic must find the lost bits.
    assert steps_that_return(Floating(), beta, torch.float64, 7, 40) < 20


@FIXED
@given(st.integers(2, 256), st.integers(0, 100), st.integers(0, 2**20))
def test_packing_returns_the_digits_for_every_base(base, count, seed):
    values = torch.randint(0, base, (2, count), generator=generator(seed)).to(torch.uint8)
    packed = pack(values, base)
    assert packed.dtype == torch.uint8
    assert packed.shape == (2, packed_size(count, base))
    assert torch.equal(unpack(packed, base, count), values)


@pytest.mark.parametrize("base", range(2, 257))
def test_packing_is_dense_for_every_base(base):
    digits, size = packing(base)
    assert base**digits <= 256**size
    entropy = math.log2(base)
    assert 8 * size / digits <= (entropy if base & (base - 1) == 0 else entropy * 1.15)
    # The greatest numbers of digits by logarithms, of which none is denser, nor as dense in fewer bytes.
    fitting = {bytes_: int(math.log(256**bytes_ + 0.5, base)) for bytes_ in range(1, 8)}
    assert (size / digits, size) == min((bytes_ / count, bytes_) for bytes_, count in fitting.items() if count)


def test_packed_digits_are_little_endian_numbers_in_little_endian_bytes():
    assert [packing(base) for base in (2, 3, 4, 5, 8, 256)] == [(8, 1), (5, 1), (4, 1), (24, 7), (8, 3), (1, 1)]
    digits = torch.tensor([1, 2, 0, 1, 2, 2], dtype=torch.uint8)
    assert pack(digits, 3).tolist() == [1 + 2 * 3 + 1 * 27 + 2 * 81, 2]
    digits = torch.tensor([7, 0, 1, 0, 0, 6, 0, 5], dtype=torch.uint8)
    word = sum(digit * 8**place for place, digit in enumerate(digits.tolist()))
    assert pack(digits, 8).tolist() == [word % 256, word // 256 % 256, word // 65536]


def test_bits_per_component_are_log2_m_for_powers_of_two():
    assert [bits_per_component(1 - 1 / m) for m in (2, 4, 8, 16)] == [1, 2, 3, 4]
    assert bits_per_component(2 / 3) == 1.6
    assert bits_per_component(0.8) == pytest.approx(7 / 3)


@pytest.mark.parametrize(("m", "sign"), [(m, sign) for m in range(2, 257) for sign in (1, -1)])
def test_every_m_has_a_form_with_1_minus_beta_equal_to_sign_over_m(m, sign):
    assert bitwise_form(1.0 - sign / m) == (m, sign)
    assert bitwise_form((m - sign) / m) == (m, sign)


@pytest.mark.parametrize(
    ("beta", "neighbours"),
    [
        (0.7, "0.666667 and 1 - 1/4 = 0.75"),
        (1.3, "1.33333 and 1 + 1/4 = 1.25"),
        (0.3, "1 - 1/2 = 0.5"),
        (1.9, "1 + 1/2 = 1.5"),
        (0.9999, "1 - 1/256 = 0.996094"),
    ],
)
def test_a_beta_without_a_form_is_refused_with_its_neighbours(beta, neighbours):
    with pytest.raises(ValueError, match="no bitwise form") as raised:
        bitwise_form(beta)
    assert neighbours in str(raised.value)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_half_step_differs_from_the_real_one_by_at_most_its_resolution(beta, dtype):
    arithmetic = Bitwise()
    state, value = numbers(1, (2, 9), dtype).to(torch.float64), numbers(2, (2, 9), dtype)
    began = arithmetic.fit(arithmetic.start(state, dtype, True, beta), value)
    after, _ = arithmetic.half_step(began, value, beta, 0)
    expected = (1 - beta) * began.value + beta * value.to(torch.float64)
    # floor(Y/m) is up to one unit low, the addend is rounded to half a grid step, and float64 rounds what is expected.
    allowed = began.unit * (1 + 2.0**began.grid / 2) + 2.0**-51 * (began.value.abs() + value.abs())
    assert bool(((after.value - expected).abs() <= allowed).all())


@pytest.mark.parametrize("beta", [0.5, 0.75, 1.25, 0.875])
def test_m3_free_steps_leave_no_remainder(beta):
    arithmetic, dtype = Bitwise(), torch.float32
    free = arithmetic.free_steps(beta, dtype)
    assert free == 20 // int(math.log2(bitwise_form(beta).m))
    start = numbers(3, (2, 5), dtype)
    state = arithmetic.fit(arithmetic.start(start.to(torch.float64), dtype, True, beta), start)
    for n in range(free + 1):
        lost = state.integers % bitwise_form(beta).m
        assert bool((lost == 0).all()) == (n < free)
        state, remainder = arithmetic.half_step(state, numbers(4 + n, (2, 5), dtype), beta, n)
        assert (remainder is None) == (n < free)


@pytest.mark.parametrize("magnitude", [1e-260, 1e-30, 1.0, 1e30, 1e280])
def test_the_range_follows_the_data_over_all_magnitudes(magnitude):
    arithmetic = Bitwise()
    start = numbers(5, (2, 6), torch.float64) * magnitude
    state = arithmetic.fit(arithmetic.start(start, torch.float64, True, 0.75), start * 2)
    assert bool((state.unit <= 2.0**-51 * start.abs().amax() * 2).all())
    after, _ = arithmetic.half_step(state, start * 1000, 0.75, 0)
    assert not bool(arithmetic.out_of_range(after).any())


def test_a_value_beyond_the_range_marks_its_sample_alone():
    arithmetic = Bitwise(range=8.0)
    start = torch.ones(3, 2, dtype=torch.float64)
    state = arithmetic.start(start, torch.float64, True, 0.5)
    value = torch.tensor([[1.0, -2.0], [1.0, 17.0], [math.nan, 1.0]], dtype=torch.float64)
    after, _ = arithmetic.half_step(state, value, 0.5, 0)
    later, _ = arithmetic.half_step(after, start, 0.5, 1)
    for marked in (after, later):
        assert arithmetic.out_of_range(marked).tolist() == [False, True, False]
        assert torch.isfinite(marked.value).all(dim=1).tolist() == [True, False, False]
        assert torch.isnan(marked.unit).flatten().tolist() == [False, False, True]


@pytest.mark.parametrize("value", [15.999999, -15.999999])
def test_the_greatest_value_that_fits_does_not_wrap(value):
    arithmetic = Bitwise(range=8.0)
    start = torch.full((1, 1), math.copysign(8.0, value), dtype=torch.float64)
    state = arithmetic.start(start, torch.float64, True, 0.5)
    for n in range(200):
        state, _ = arithmetic.half_step(state, torch.full((1, 1), value, dtype=torch.float64), 0.5, n)
    assert state.value.item() == pytest.approx(value, rel=1e-12)


def test_a_tape_grows_without_changing_and_counts_its_bytes():
    first = Tape(4).push((torch.zeros(3, dtype=torch.uint8), None))
    second = first.push((torch.ones(1, dtype=torch.uint8), None))
    assert (first.num_bytes, second.num_bytes) == (3, 4)
    assert (len(first), len(second)) == (1, 2)
    with pytest.raises(ValueError, match="outgrow memory=4 bytes at half step 3"):
        second.push((torch.ones(1, dtype=torch.uint8), None))


def test_the_tape_size_counts_both_states_after_the_free_steps():
    assert tape_size(0.5, 64, 30, free_steps=20) == 2 * 10 * 8
    assert tape_size(0.8, 24, 3) == 2 * 3 * 7


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"range": 0.0}, ValueError, "range is 0.0"),
        ({"range": math.inf}, ValueError, "range is inf"),
        ({"range": "8"}, TypeError, "range is '8'"),
        ({"resolution": math.nan}, ValueError, "resolution is nan"),
        ({"range": 1.0, "resolution": 2.0**-63}, ValueError, "takes 63 bits"),
        ({"memory": -1}, ValueError, "memory is -1"),
    ],
)
def test_a_bitwise_arithmetic_refuses_what_it_cannot_hold(given, error, said):
    with pytest.raises(error) as raised:
        Bitwise(**given)
    assert said in str(raised.value)
