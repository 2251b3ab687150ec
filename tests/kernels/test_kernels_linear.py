"""Each product against its naive reference, at every level of instructions that this processor has."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from herd.kernels import library, linear_bf16, linear_f32, linear_fp8, linear_int8, linear_q8_0, reference
from herd.kernels.e4m3 import quantize_rows

LEVELS = (library.TORCH, *library.LEVELS)
SHAPES = [
    (1, 1, 1),
    (1, 5, 31),
    (2, 1, 64),
    (3, 4, 33),
    (5, 9, 127),
    (13, 33, 320),
    (70, 3, 96),
    (4, 130, 1000),
]  # M N K
BOUND = 20.0
EXACT = {"rtol": 0.0, "atol": 0.0}
CLOSE = {"rtol": 1e-4, "atol": 1e-4}  # sums in another order


@pytest.fixture(params=LEVELS)
def level(request, monkeypatch):
    force(monkeypatch, request.param)
    return request.param


def force(monkeypatch, level):
    """Skips where the processor has no such level, or nothing was compiled."""
    path = library.library_path()
    if level != library.TORCH and path is None:
        pytest.skip("the kernels were not compiled: no C compiler when herd was installed")
    if level != library.TORCH and library._load(path).herd_best_level() < library.LEVELS.index(level):
        pytest.skip(f"this processor has no {level}")
    monkeypatch.setenv(library.VARIABLE, level)
    library.kernels.cache_clear()


@pytest.fixture(autouse=True)
def forget_level():
    yield
    library.kernels.cache_clear()


def draw(*shape, seed=0, scale=1.0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def make_q8_0(n, blocks):
    made = torch.randint(0, 256, (n, blocks, 34), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    made[:, :, :2] = draw(n, blocks, 1, seed=4).half().view(torch.uint8).view(n, blocks, 2)
    return made.flatten(1)


def products(n, k):
    """(name, the product, its reference, K) for weights of n rows."""
    fp8, scale = quantize_rows(draw(n, k, seed=1))
    int8 = draw(n, k, seed=2, scale=50.0).clamp(-128, 127).to(torch.int8)
    bf16, blocks = draw(n, k, seed=5).bfloat16(), make_q8_0(n, -(-k // 32))
    both = {"fp8": {"bound": BOUND}, "fp8 unbounded": {}, "fp8 weight only": {"weight_only": True}}
    for name, how in both.items():
        yield (
            name,
            lambda x, how=how: linear_fp8(x, fp8, scale, **how),
            lambda x, how=how: reference.linear_fp8(x, fp8, scale, **how),
            k,
        )
    yield "int8", lambda x: linear_int8(x, int8, scale), lambda x: reference.linear_int8(x, int8, scale), k
    yield "bf16", lambda x: linear_bf16(x, bf16), lambda x: reference.linear_bf16(x, bf16), k
    f32 = draw(n, k, seed=6)
    yield "f32", lambda x: linear_f32(x, f32), lambda x: reference.linear_f32(x, f32), k
    yield "q8_0", lambda x: linear_q8_0(x, blocks), lambda x: reference.linear_q8_0(x, blocks), -(-k // 32) * 32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_products_equal_their_references(level, dtype):
    for m, n, k in SHAPES:
        for name, product, expected, width in products(n, k):
            x = (draw(m, width, seed=7, scale=0.5) * draw(m, 1, seed=8).exp()).to(dtype)
            found, wanted = product(x), expected(x)
            assert found.dtype == dtype
            assert found.shape == (m, n)
            size = wanted.float().abs().amax(dim=1, keepdim=True).clamp(min=1e-6)
            error = ((found.float() - wanted.float()) / size).abs().max().item()
            # float32 sums in another order, which may cancel; else one rounding may fall the other way
            tolerance = 3e-5 if dtype == torch.float32 else torch.finfo(dtype).eps
            assert error <= tolerance, (name, m, n, k, error)


@pytest.mark.parametrize(("n", "k"), [(64, 1024), (130, 1056), (70, 1000), (1, 33), (40, 2048)])
def test_a_row_depends_on_no_other_row_and_on_no_number_of_threads(level, n, k):
    if level == library.TORCH:
        pytest.skip("torch's products promise no such thing")
    threads = torch.get_num_threads()
    most = 512 if level.startswith(("avx512", "amx")) else 70
    try:
        for name, product, _, width in products(n, k):
            x = draw(most, width, seed=7)
            for rows in (x, x.bfloat16()):
                torch.set_num_threads(1)
                whole = product(rows)
                torch.set_num_threads(3)
                assert torch.equal(whole, product(rows)), (name, "threads")
                for m in (1, 2, 7, 15, 17, 32, 33, 70):
                    assert torch.equal(whole[:m], product(rows[:m])), (name, m)
                    assert torch.equal(whole[-m:], product(rows[-m:])), (name, m, "last")
                some = range(0, most, most // 5)
                alone = torch.cat([product(rows[i : i + 1]) for i in some])
                assert torch.equal(alone, whole[some]), (name, "alone")
    finally:
        torch.set_num_threads(threads)


def test_sums_of_floats_take_one_column_after_the_other(level):
    """What decides the order is K alone: float32 results are the same at every level that has a fused product."""
    if level in (library.TORCH, "portable"):
        pytest.skip("another order, or products that are rounded")
    x, weight = draw(3, 133, seed=1), draw(9, 133, seed=2)
    wide, sums = (x[:, None] * weight.double()[None]), torch.zeros(3, 9)
    for column in wide.unbind(-1):  # float64 holds a product and, here, its sum exactly enough to round once
        sums = (sums.double() + column).float()
    torch.testing.assert_close(linear_f32(x, weight), sums, **EXACT)


def test_every_code_of_e4m3_is_exact(level):
    codes = torch.arange(256, dtype=torch.uint8)
    weight = codes.view(torch.float8_e4m3fn)[:, None].repeat(1, 40)
    weight[:, 1:] = torch.zeros(1).to(torch.float8_e4m3fn)
    scale = torch.ones(256, 1)
    values = codes.view(torch.float8_e4m3fn).float()
    for rows in (1, 2, 5):
        for dtype in (torch.float32, torch.bfloat16):  # 448 is a value of e4m3: quantising x changes nothing
            x = torch.full((rows, 40), 448.0, dtype=dtype)
            for found in (linear_fp8(x, weight, scale), linear_fp8(x, weight, scale, weight_only=True)):
                torch.testing.assert_close(found, (values * 448.0).to(dtype).expand(rows, 256), equal_nan=True, **EXACT)
    assert values.isnan().sum() == 2


@pytest.mark.parametrize("others", [0x38, 0x01, 0x00])
def test_every_code_of_e4m3_is_exact_among_common_and_among_seldom_ones(level, others):
    """Groups of 64 columns that hold subnormals or NaN may be widened in another way: here each code stands in one."""
    codes = torch.full((256, 200), others, dtype=torch.uint8)
    places = torch.arange(256) * 7 % 200
    codes[torch.arange(256), places] = torch.arange(256, dtype=torch.uint8)
    weight, scale = codes.view(torch.float8_e4m3fn), torch.ones(256, 1)
    x = torch.eye(200) * 448.0
    expected = reference.linear_fp8(x, weight, scale)
    assert expected.isnan().any()
    for rows in (slice(7, 8), slice(5), slice(20), slice(200)):
        for inputs in (x[rows], x[rows].bfloat16()):
            for how in ({}, {"weight_only": True}):
                found = linear_fp8(inputs, weight, scale, **how)
                torch.testing.assert_close(found, expected[rows].to(inputs.dtype), equal_nan=True, **EXACT)


@pytest.mark.parametrize("power", [-117, -60, 60, 119])
def test_activations_of_any_magnitude_meet_weights_exactly(level, power):
    weight = torch.tensor([[2.0**-9, 0.875], [1.75, -448.0]]).to(torch.float8_e4m3fn)
    x = torch.eye(2, dtype=torch.bfloat16) * 2.0**power
    expected = reference.linear_fp8(x, weight, torch.ones(2, 1), weight_only=True)
    found = linear_fp8(x, weight, torch.ones(2, 1), weight_only=True)
    normal = expected.abs() >= 2.0**-126  # less may count as zero
    torch.testing.assert_close(found[normal], expected[normal], **EXACT)


def test_activations_are_quantised_as_quantize_rows_does(level):
    """Against the identity, a product shows the values of e4m3 themselves."""
    eye = torch.eye(300).to(torch.float8_e4m3fn)
    ones = torch.ones(300, 1)
    spread = draw(6, 300, seed=1) * torch.logspace(-9, 3, 300)
    ties = torch.arange(300).float() / 16  # midway between values of e4m3, subnormals too
    awkward = torch.tensor([448.0, -448.0, 0.0, -0.0, 2**-10, 3 * 2**-10, 1e-30, 1e-45, 464.0]).repeat(34)[:300]
    rows = [*spread, ties, ties / 1e6, awkward, torch.zeros(300), torch.full((300,), 1e-20), torch.full((300,), 3e38)]
    for bound in (None, 20.0, 1200.0):
        x = torch.stack(rows)
        values, scale = quantize_rows(x, bound)
        torch.testing.assert_close(linear_fp8(x, eye, ones, bound=bound), values.float() * scale, **EXACT)


def test_what_is_not_finite_stays_in_its_row(level):
    fp8, scale = quantize_rows(draw(6, 64, seed=1))
    for spoilt in (float("inf"), -float("inf"), float("nan")):
        for rows in (1, 4):
            x = draw(rows, 64, seed=2)
            x[0, 3] = spoilt
            for how in ({"bound": BOUND}, {}, {"weight_only": True}):
                found, wanted = linear_fp8(x, fp8, scale, **how), reference.linear_fp8(x, fp8, scale, **how)
                torch.testing.assert_close(found, wanted, equal_nan=True, **CLOSE)
            for product, expected in [
                (linear_int8(x, fp8.view(torch.int8), scale), reference.linear_int8(x, fp8.view(torch.int8), scale)),
                (linear_f32(x, fp8.float()), reference.linear_f32(x, fp8.float())),
                (linear_bf16(x, fp8.bfloat16()), reference.linear_bf16(x, fp8.bfloat16())),
            ]:
                torch.testing.assert_close(product, expected, equal_nan=True, **CLOSE)


@pytest.mark.parametrize("rows", [1, 3])
def test_inputs_need_not_be_contiguous(level, rows):
    wide, scale = quantize_rows(draw(40, 96, seed=1))
    x = draw(96, 2 * rows, seed=2).t()[::2]
    stepped = draw(rows, 200, seed=3)[:, 4:100]
    for weight, its_scale in [(wide[::2], scale[::2]), (wide.t().contiguous().t(), scale), (wide[3:], scale[3:])]:
        for inputs in (x, stepped, stepped[None, :, None]):
            expected = reference.linear_fp8(inputs, weight, its_scale)
            torch.testing.assert_close(linear_fp8(inputs, weight, its_scale), expected, **CLOSE)


def test_empty_inputs_give_empty_results(level):
    weight, scale = quantize_rows(draw(4, 32))
    assert linear_fp8(torch.empty(0, 32), weight, scale).shape == (0, 4)
    assert linear_fp8(torch.ones(2, 32), weight[:0], scale[:0]).shape == (2, 0)
    assert linear_f32(torch.empty(2, 0), torch.empty(3, 0)).tolist() == [[0.0] * 3] * 2
    assert linear_bf16(torch.empty(2, 0), torch.empty(3, 0, dtype=torch.bfloat16)).tolist() == [[0.0] * 3] * 2


@given(st.integers(1, 9), st.integers(1, 40), st.integers(1, 300), st.integers(0, 2**31))
def test_random_shapes(m, n, k, seed):
    weight, scale = quantize_rows(draw(n, k, seed=seed))
    x = draw(m, k, seed=seed + 1)
    torch.testing.assert_close(
        linear_fp8(x, weight, scale), reference.linear_fp8(x, weight, scale), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    "call",
    [
        lambda: linear_fp8(torch.ones(1, 31), torch.ones(2, 32).to(torch.float8_e4m3fn), torch.ones(2, 1)),
        lambda: linear_fp8(torch.ones(1, 32), torch.ones(2, 32), torch.ones(2, 1)),
        lambda: linear_fp8(torch.ones(1, 32), torch.ones(2, 32).to(torch.float8_e4m3fn), torch.ones(1, 1)),
        lambda: linear_fp8(torch.ones(1, 32), torch.ones(2, 32).to(torch.float8_e4m3fn), torch.ones(2, 1).double()),
        lambda: linear_bf16(torch.ones(1, 32, dtype=torch.int64), torch.ones(2, 32, dtype=torch.bfloat16)),
        lambda: linear_f32(torch.ones(1, 32), torch.ones(2, 32, dtype=torch.bfloat16)),
        lambda: linear_q8_0(torch.ones(1, 32), torch.zeros(2, 33, dtype=torch.uint8)),
        lambda: linear_q8_0(torch.ones(1, 64), torch.zeros(2, 34, dtype=torch.uint8)),
        lambda: linear_int8(torch.ones(1, 4), torch.zeros(2, 2, 4, dtype=torch.int8), torch.ones(2, 1)),
    ],
)
def test_sizes_that_do_not_fit_are_refused(call):
    with pytest.raises(ValueError, match=r"weight|scale|activations|blocks"):
        call()
