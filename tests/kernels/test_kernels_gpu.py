"""The kernels for CUDA devices in Triton's interpreter, on the CPU, against the same references as all others."""

import importlib.util
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from herd.kernels import e4m3, reference
from herd.kernels.attention import PageTensors

E4M3 = torch.float8_e4m3fn
SHAPES = [(1, 1, 1), (2, 65, 130), (17, 33, 1100)]  # M N K


INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # read when Triton is imported: it takes a process of its own
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None,
    reason="Triton is not here: it comes with torch's CUDA builds, or pip install triton",
)


@pytest.fixture(scope="module")
def gpu():
    pytest.importorskip("triton", reason="Triton is not here: it comes with torch's CUDA builds, or pip install triton")
    if not INTERPRETED:
        pytest.skip("runs in the process of test_all_of_it_in_the_interpreter")
    from herd.kernels.gpu import attention, products

    return SimpleNamespace(attention=attention, products=products)


@needs_triton
@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="is the process itself")
def test_all_of_it_in_the_interpreter():
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert set(done.stdout.split()[0]) == {"."}, done.stdout  # nothing was skipped


@needs_triton
@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="compiles")
@pytest.mark.parametrize("capability", [80, 89, 90])
def test_they_compile_for_devices_that_are_not_here(capability, tmp_path, monkeypatch):
    """Down to machine code, as bfloat16 models use them; Triton brings its own assembler."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from herd.kernels.gpu import code

    sums = ("*fp32",) * 3
    tile = {"BLOCK_M": 16, "BLOCK_N": 64, "BLOCK_K": 128}
    heads = {"PAGE": 16, "SIZE": 128, "R": 16, "WIDTH": 128, "BLOCK": 64, "TOKENS": 1}
    tiles = {**heads, "R": 64, "TOKENS": 16}
    pages = ("*fp32", "*fp32", "*i32", "*i32", "*i32", *sums, *("i32",) * 5, "fp32")
    kernels = [
        (code.quantize_rows_kernel, ("*bf16", "*u8", "*fp32", "fp32", "i32", "i32"), {"BLOCK": 1024}),
        (code.matmul_kernel, ("*u8", "*u8", "*fp32", *("i32",) * 6), {"CODES": True, **tile}),
        (code.matmul_kernel, ("*bf16", "*u8", "*fp32", *("i32",) * 6), {"CODES": False, **tile}),
        (code.attention_kernel, ("*bf16", "*bf16", "*bf16", *pages), {"CODES": False, **heads}),
        (code.attention_kernel, ("*bf16", "*u8", "*u8", *pages), {"CODES": True, **heads}),
        (code.attention_kernel, ("*bf16", "*bf16", "*bf16", *pages), {"CODES": False, **tiles}),
        (code.attention_kernel, ("*bf16", "*u8", "*u8", *pages), {"CODES": True, **tiles}),
        (code.attention_kernel, ("*fp32", "*fp32", "*fp32", *pages), {"CODES": False, **tiles, "R": 32, "TOKENS": 8}),
        (code.merge_kernel, (*sums, "*bf16", "i32"), {"SIZE": 128, "WIDTH": 128}),
    ]
    for kernel, types, constants in kernels:
        names = [name for name in kernel.arg_names if name not in constants]
        signature = dict(zip(names, types, strict=True)) | dict.fromkeys(constants, "constexpr")
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
        made = triton.compile(source, target=GPUTarget("cuda", capability, 32))
        assert made.asm["cubin"]
        assert made.metadata.shared <= 99 * 1024, kernel  # what the smallest of these devices lends a program


def test_without_triton_or_a_device_torch_does_the_work(monkeypatch):
    from herd.kernels import gpu as package

    assert package.problem(torch.device("cpu")) == "cpu is no CUDA device"
    assert not package.usable(torch.zeros(1, 16), torch.zeros(1, 16))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    package.problem.cache_clear()
    assert package.problem(torch.device("cuda", 7)) == "Triton is not installed"
    package.problem.cache_clear()


def draw(*shape, seed=0, scale=1.0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def all_codes():
    return torch.arange(256, dtype=torch.uint8).view(E4M3)


def bits(tensor):
    """NaN has two codes in e4m3; which of them is chosen means nothing."""
    codes = tensor.view(torch.uint8)
    return torch.where((codes & 0x7F) == 0x7F, 0x7F, codes)


def test_rows_are_quantised_to_the_bits_of_torch(gpu):
    spread = draw(4, 1500, seed=1) * torch.logspace(-9, 3, 1500)
    ties = torch.arange(1500).float() / 16
    awkward = torch.tensor([448.0, -448.0, 0.0, -0.0, 2**-10, 3 * 2**-10, 1e-30, 464.0, -1e-45, 2**-7]).repeat(150)
    rows = [*spread, ties, ties / 1e6, -awkward, awkward, torch.zeros(1500), torch.full((1500,), 3e38)]
    sick = draw(1500, seed=3)
    sick[700] = torch.nan
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        x = torch.stack([*rows, sick]).to(dtype)
        x = x[:, :1333] if dtype == torch.bfloat16 else x  # rows that are no whole block, and apart in memory
        for bound in (None, 1200.0, 20.0):
            found, found_scale = gpu.products.quantize_rows(x, bound)
            values, scale = e4m3.quantize_rows(x, bound)
            torch.testing.assert_close(found_scale, scale, rtol=0, atol=0, equal_nan=True)
            assert torch.equal(bits(found), bits(values))


def test_every_code_of_e4m3_is_exact(gpu):
    weight = torch.zeros(256, 40).to(E4M3)
    weight[:, 0] = all_codes()
    scale = torch.ones(256, 1)
    for x in (torch.full((2, 40), 448.0), torch.full((2, 40), 448.0).bfloat16()):
        expected = (all_codes().float() * 448.0).to(x.dtype).expand(2, 256)
        for weight_only in (False, True):
            found = gpu.products.linear_fp8(x, weight, scale, None, weight_only)
            torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_products_equal_their_reference(gpu, dtype):
    for m, n, k in SHAPES:
        weight, scale = e4m3.quantize_rows(draw(n, k, seed=1))
        x = (draw(m, k, seed=2) * draw(m, 1, seed=3).exp()).to(dtype)
        for how in ({"bound": None}, {"bound": 2.0}, {"bound": None, "weight_only": True}):
            found = gpu.products.linear_fp8(x, weight, scale, how["bound"], how.get("weight_only", False))
            expected = reference.linear_fp8(x, weight, scale, **how)
            assert found.dtype == dtype
            size = expected.float().abs().amax(1, keepdim=True)
            error = ((found.float() - expected.float()).abs() / size).max().item()
            assert error <= (1e-5 if dtype == torch.float32 else torch.finfo(dtype).eps), (m, n, k, how, error)


def test_a_row_depends_on_no_other_row(gpu):
    weight, scale = e4m3.quantize_rows(draw(70, 1100, seed=1))
    x = draw(19, 1100, seed=2).bfloat16()
    for weight_only in (False, True):
        whole = gpu.products.linear_fp8(x, weight, scale, None, weight_only)
        alone = [gpu.products.linear_fp8(row, weight, scale, None, weight_only) for row in x[::6].split(1)]
        assert torch.equal(whole[::6], torch.cat(alone))


def test_what_is_not_finite_stays_in_its_row(gpu):
    weight, scale = e4m3.quantize_rows(draw(6, 64, seed=1))
    x = draw(3, 64, seed=2)
    x[1, 3] = torch.nan
    for how in ({"bound": 20.0}, {"bound": None, "weight_only": True}):
        found = gpu.products.linear_fp8(x, weight, scale, how["bound"], how.get("weight_only", False))
        expected = reference.linear_fp8(x, weight, scale, **how)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4, equal_nan=True)
        assert found[1].isnan().all()


def test_shapes_that_are_odd_or_empty(gpu):
    weight, scale = e4m3.quantize_rows(draw(40, 96, seed=1))
    x = draw(96, 6, seed=2).t()[None, ::2]
    found = gpu.products.linear_fp8(x, weight[::2], scale[::2], None)
    torch.testing.assert_close(found, reference.linear_fp8(x, weight[::2], scale[::2]), rtol=1e-4, atol=1e-4)
    assert gpu.products.linear_fp8(x[:, :0], weight, scale, None).shape == (1, 0, 40)
    assert gpu.products.linear_fp8(x, weight[:0], scale[:0], None).shape == (1, 3, 0)


def scattered(lengths, groups, page, size, dtype, seed=0):
    """Pages in a random order, tables, and the same keys and values as plain rows [S, longest, G, K]."""
    generator = torch.Generator().manual_seed(seed)
    each = [-(-length // page) for length in lengths]
    order = torch.randperm(sum(each) + 3, generator=generator)
    tables = torch.zeros(len(lengths), max(each), dtype=torch.int32)
    shape = (len(order), groups, page, size)
    keys, values = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    rows = []
    for row, count in enumerate(each):
        mine = order[sum(each[:row]) : sum(each[:row]) + count]
        tables[row, :count] = mine
        rows.append(tuple(x[mine].transpose(1, 2).reshape(-1, groups, size) for x in (keys, values)))
    return PageTensors(keys, values), tables, rows


def plain_attention(q_NHK, rows, sequence_N, positions_N):
    out = []
    for q_HK, sequence, position in zip(q_NHK, sequence_N.tolist(), positions_N.tolist(), strict=True):
        keys, values = (x[: position + 1].double() for x in rows[sequence])
        group_of = torch.arange(len(q_HK)) // (len(q_HK) // keys.shape[1])
        scores = torch.einsum("hk,phk->hp", q_HK.double(), keys[:, group_of]) * q_HK.shape[-1] ** -0.5
        out.append(torch.einsum("hp,phk->hk", scores.softmax(-1), values[:, group_of]))
    return torch.stack(out)


ATTENTION = [(4, 2, 16, 16, (1, 5)), (6, 2, 8, 24, (70, 17)), (8, 1, 32, 64, (530, 1100))]  # H G page K lengths


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_over_pages(gpu, dtype):
    for heads, groups, page, size, lengths in ATTENTION:
        pages, tables, rows = scattered(lengths, groups, page, size, dtype)
        sequence = torch.tensor([0, 1, 1], dtype=torch.int32)  # a part of a prompt too: two tokens of one sequence
        positions = torch.tensor([lengths[0] - 1, lengths[1] // 2, lengths[1] - 1], dtype=torch.int32)
        q = draw(3, heads, size, seed=5).to(dtype)
        found = gpu.attention.paged_attention(q, pages, tables, sequence, positions)
        expected = plain_attention(q, rows, sequence, positions)
        exact = 1e-5 if dtype == torch.float32 else 2e-2
        torch.testing.assert_close(found.double(), expected, rtol=exact, atol=exact)
        alone = gpu.attention.paged_attention(q[2:], pages, tables, sequence[2:], positions[2:])
        assert torch.equal(alone, found[2:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_of_a_part_of_a_prompt(gpu, dtype):
    """Tiles of several tokens, the last one not full; few tokens over parts side by side, many over the whole."""
    for heads, groups, page, size, start, count in (
        (4, 2, 16, 16, 0, 40),
        (6, 2, 8, 24, 700, 9),
        (8, 1, 32, 64, 30, 70),
    ):
        pages, tables, rows = scattered((start + count,), groups, page, size, dtype)
        positions = torch.arange(start, start + count, dtype=torch.int32)
        q = draw(count, heads, size, seed=5).to(dtype)
        found = gpu.attention.prompt_attention(q, pages, tables[0], positions)
        expected = plain_attention(q, rows, torch.zeros_like(positions), positions)
        exact = 1e-5 if dtype == torch.float32 else 2e-2
        torch.testing.assert_close(found.double(), expected, rtol=exact, atol=exact)


def test_attention_over_pages_in_e4m3(gpu):
    pages, tables, _ = scattered((90, 600), 2, 16, 32, torch.float32)
    narrow = [e4m3.quantize_rows(x) for x in pages[:2]]
    codes = PageTensors(narrow[0][0], narrow[1][0], narrow[0][1][..., 0].clone(), narrow[1][1][..., 0].clone())
    wide = PageTensors(*(values.float() * scale for values, scale in narrow))
    sequence, positions = torch.tensor([0, 1], dtype=torch.int32), torch.tensor([89, 599], dtype=torch.int32)
    q = draw(2, 4, 32, seed=5)
    found, expected = (gpu.attention.paged_attention(q, each, tables, sequence, positions) for each in (codes, wide))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    last = torch.tensor([597, 598, 599], dtype=torch.int32)
    q = draw(3, 4, 32, seed=6)
    found, expected = (gpu.attention.prompt_attention(q, each, tables[1], last) for each in (codes, wide))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_rubbish_after_a_sequences_end_is_not_seen(gpu):
    pages, tables, rows = scattered((20, 9), 2, 8, 16, torch.float32)
    for tensor, row in ((pages.keys, 0), (pages.values, 0)):
        tensor[tables[row, 2], :, 4:] = torch.nan  # positions 20 and on
    sequence, positions = torch.tensor([0, 1], dtype=torch.int32), torch.tensor([19, 8], dtype=torch.int32)
    q = draw(2, 4, 16, seed=5)
    found = gpu.attention.paged_attention(q, pages, tables, sequence, positions)
    torch.testing.assert_close(found.double(), plain_attention(q, rows, sequence, positions), rtol=1e-5, atol=1e-5)


def test_attention_refuses_what_does_not_fit(gpu):
    pages, tables, _ = scattered((20, 9), 2, 8, 16, torch.float32)
    places = torch.zeros(2, dtype=torch.int32)
    for q, its_pages, its_tables in (
        (draw(2, 3, 16), pages, tables),  # three heads on two groups
        (draw(2, 4, 8), pages, tables),
        (draw(3, 4, 16), pages, tables),
        (draw(2, 4, 16), pages, tables.long()),
        (draw(2, 4, 16).bfloat16(), pages, tables),
        (draw(2, 4, 16), PageTensors(pages.keys.to(E4M3), pages.values.to(E4M3)), tables),
        (draw(2, 4, 16), PageTensors(pages.keys.transpose(1, 1)[::2], pages.values[::2]), tables),
    ):
        with pytest.raises(ValueError, match=r"fit|int32|e4m3|queries|piece"):
            gpu.attention.paged_attention(q, its_pages, its_tables, places, places)


@pytest.mark.parametrize("cache_dtype", [None, E4M3])
def test_an_engine_decodes_over_pages_where_they_lie(gpu, monkeypatch, cache_dtype):
    """Beginnings of prompts in torch, their later parts and single tokens in the kernels: the tokens of torch alone."""
    from herd.generate import paged_cache
    from herd.generate.engine import Engine
    from herd.generate.protocol import Request, Sampling
    from herd.generate.settings import SchedulerSettings
    from herd.kernels.gpu import attention
    from herd.llama.config import LlamaConfig
    from herd.llama.init import init_weights
    from herd.llama.model import Llama

    model = Llama(LlamaConfig(61, 32, 2, 4, 2, 48, max_seq_len=256))
    init_weights(model, 0, 0.2)
    asked = [Request(tuple(range(1 + n, 5 + 9 * n)), Sampling(0.0, max_tokens=4)) for n in range(3)]
    called = {"paged_attention": 0, "prompt_attention": 0}

    def counted(name, real):
        def work(*args):
            called[name] += 1
            return real(*args)

        return work

    for name in called:
        monkeypatch.setattr(attention, name, counted(name, getattr(attention, name)))
    monkeypatch.setattr(paged_cache, "usable", lambda *_: False)  # the compiled library, which would do it all
    found = []
    for in_place in (False, True):
        monkeypatch.setattr(paged_cache.gpu, "attends", lambda *_, answer=in_place: answer)
        settings = SchedulerSettings(max_running=3, token_budget=12)  # prompts come in parts
        engine = Engine(model.eval(), cache_tokens=512, cache_dtype=cache_dtype, scheduling=settings)
        handles = [engine.submit(request) for request in asked]
        done = {}
        while len(done) < len(handles):
            done |= dict(engine.step().finished)
        found.append([done[handle] for handle in handles])
    assert all(called.values()), called
    for one, other in zip(*found, strict=True):
        assert one.tokens == other.tokens
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
