"""The reversible solve under torch.func and forward-mode AD: the numbers of the recorded loop, or a sentence."""

from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jvp, vmap
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import _pytree

from revdeq import GradientError, Reversible, ReversibleAdjoint, UnrolledAdjoint, solve


Loss = Callable[[Any, Tensor, Tensor, Tensor], Tensor]
"""Of (adjoint, z0, weight, shift)."""


def drawn(*shape: int, size: float = 1.0, dtype: torch.dtype = torch.float64) -> Tensor:
    return (torch.randn(*shape, dtype=torch.float64) * size).to(dtype)


def leaves(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    return drawn(3, 4, dtype=dtype), drawn(4, 4, size=0.4, dtype=dtype), drawn(3, 4, dtype=dtype)


def solved(adjoint: Any, z0: Tensor, weight: Tensor, shift: Tensor, function: Any = None, **how: Any) -> Any:
    """Return the solution; the weight is captured, the shift an argument."""

    def cell(z: Tensor, a: Tensor) -> Tensor:
        return torch.tanh(z @ weight + a)

    def collecting(z: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        return cell(z, a), (cell(z, a) * a).square().sum()

    def of_the_step(z: Tensor, a: Tensor, step: int) -> Tensor:
        return cell(z, a) / (1 + step)

    given = collecting if "has_aux" in how else of_the_step if "with_step" in how else cell
    settings: dict[str, Any] = {"solver": Reversible(0.8), "max_steps": 5, "throw": False, **how}
    if settings.pop("continued", False):
        settings["y0"] = z0 * shift
    return solve(function or given, z0, shift, adjoint=adjoint, **settings)


def loss_of(s: Any) -> Tensor:
    results = [s.z1, s.y1, *([s.aux] if s.aux is not None else []), *s.saved]
    return torch.stack([(i + 1) * r.double().sin().sum() for i, r in enumerate(results)]).sum()


def loss_with(**how: Any) -> Loss:
    return lambda adjoint, *operands: loss_of(solved(adjoint, *operands, **how))


def transform(name: str, loss: Loss, adjoint: Any, operands: tuple[Tensor, Tensor, Tensor]) -> list[Tensor]:
    """Return the leaves of what a transform of the loss gives."""

    def f(*given: Tensor) -> Tensor:
        return loss(adjoint, *given)

    def of_sample(weight: Tensor, z: Tensor, a: Tensor) -> Tensor:
        return loss(adjoint, z[None], weight, a[None])

    z0, weight, shift = operands
    every = (0, 1, 2)
    calls: dict[str, Callable[[], Any]] = {
        "grad": lambda: grad(f, every)(*operands),
        "jvp": lambda: jvp(f, operands, (z0.sin(), weight.cos(), shift)),
        "vmap": lambda: vmap(of_sample, (None, 0, 0))(weight, z0, shift),
        "vmap of grad": lambda: vmap(grad(of_sample, every), (None, 0, 0))(weight, z0, shift),
        "grad of vmap": lambda: grad(lambda z, w, a: vmap(of_sample, (None, 1, 0))(w, z.T, a).square().sum(), every)(
            *operands
        ),
        "grad of grad": lambda: grad(
            lambda z, w, a: torch.stack([g.square().sum() for g in grad(f, every)(z, w, a)]).sum(), every
        )(*operands),
        "jvp of grad": lambda: jvp(grad(f, every), operands, (z0.sin(), weight.cos(), shift)),
        "grad of jvp": lambda: grad(lambda *g: jvp(f, g, (z0.sin(), weight.cos(), shift))[1], every)(*operands),
        "hessian": lambda: hessian(f, 2)(*operands),
        "vmap of hessian": lambda: vmap(hessian(of_sample, 1), (None, 0, 0))(weight, z0, shift),
    }
    return _pytree.tree_leaves(calls[name]())


def agree(name: str, loss: Loss, operands: tuple[Tensor, Tensor, Tensor], *, roundings: int = 64) -> None:
    got = transform(name, loss, ReversibleAdjoint(), operands)
    want = transform(name, loss, UnrolledAdjoint(), operands)
    for g, w in zip(got, want, strict=True):
        assert g.dtype == w.dtype
        error = float((g - w).double().norm() / w.double().norm().clamp(min=1e-300))
        assert error <= roundings * torch.finfo(operands[0].dtype).eps, error


TRANSFORMS = (
    *("grad", "jvp", "vmap", "vmap of grad", "grad of vmap", "grad of grad", "jvp of grad", "grad of jvp"),
    *("hessian", "vmap of hessian"),
)
SETTINGS: dict[str, dict[str, Any]] = {
    "no step": {"max_steps": 0},
    "schedule": {"solver": Reversible(((0.5, 0.6), (0.7, 1.2), (0.9, 0.4))), "max_steps": 3},
    "saved": {"save_at": (0, 3)},
    "aux of the last": {"has_aux": "last"},
    "aux of all": {"has_aux": "sum"},
    "steps": {"with_step": True},
    "one sample": {"batch_dims": 0},
    "from two states": {"continued": True},
}


# Those that between them go through every function and every rule of vmap.
FEW = ("vmap of grad", "grad of vmap", "grad of grad", "vmap of hessian")


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_give_what_they_give_of_the_recorded_loop(name: str):
    agree(name, loss_with(), leaves())


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("setting", SETTINGS)
def test_settings_under_transforms(name: str, setting: str):
    agree(name, loss_with(**SETTINGS[setting]), leaves())


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_transforms_of_narrow_functions_with_wide_states(name: str, dtype: torch.dtype):
    agree(name, loss_with(), leaves(dtype))


BY_SAMPLE: dict[str, dict[str, Any]] = {
    "tolerance": {"max_steps": 60, "rtol": 1e-3, "atol": 1e-3},
    "adaptive": {"solver": Reversible("adaptive")},
    "bitwise": {"solver": Reversible(0.75, arithmetic="bitwise")},
}


@pytest.mark.parametrize("name", ["grad", "jvp", "grad of grad", "jvp of grad", "grad of jvp"])
@pytest.mark.parametrize("setting", ["tolerance", "adaptive"])
def test_solves_that_go_by_samples_without_vmap(name: str, setting: str):
    agree(name, loss_with(**BY_SAMPLE[setting]), leaves())


@pytest.mark.parametrize("name", ["vmap", "vmap of grad", "grad of vmap", "hessian"])
@pytest.mark.parametrize("setting", BY_SAMPLE)
def test_solves_that_go_by_samples_are_refused_under_vmap(name: str, setting: str):
    with pytest.raises(GradientError, match=r"under vmap.* use UnrolledAdjoint"):
        transform(name, loss_with(**BY_SAMPLE[setting]), ReversibleAdjoint(), leaves())


def test_first_gradients_are_those_of_the_plain_solve_to_the_bit():
    z0, weight, shift = leaves(torch.float32)
    got = grad(loss_with(), (1, 2, 3))(ReversibleAdjoint(), z0, weight, shift)
    plain = tuple(t.clone().requires_grad_() for t in (z0, weight, shift))
    want = torch.autograd.grad(loss_with()(ReversibleAdjoint(), *plain), plain)
    assert all(torch.equal(g, w) for g, w in zip(got, want, strict=True))


def test_forward_mode_gives_the_tangents_of_what_is_captured_and_given():
    z0, weight, shift = leaves()

    def tangents(adjoint: Any) -> list[Tensor]:
        with forward_ad.dual_level():
            duals = [forward_ad.make_dual(t, t.cos()) for t in (z0, weight, shift)]
            s = solved(adjoint, *duals)
            return [cast(Tensor, forward_ad.unpack_dual(t).tangent) for t in (s.z1, s.y1)]

    for g, w in zip(tangents(ReversibleAdjoint()), tangents(UnrolledAdjoint()), strict=True):
        torch.testing.assert_close(g, w, rtol=1e-13, atol=1e-14)


class Model(nn.Module):
    """A layer whose f reads the parameters of a module, dropout and a buffer among it."""

    def __init__(self, adjoint: Any) -> None:
        super().__init__()
        self.cell, self.adjoint = nn.Linear(4, 4).double(), adjoint
        self.scale = nn.Buffer(torch.tensor(0.4, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        def f(z: Tensor, a: Tensor) -> Tensor:
            return torch.tanh(self.scale * nn.functional.dropout(self.cell(z), 0.3) + a)

        return solve(f, torch.zeros_like(x), x, adjoint=self.adjoint, max_steps=4, throw=False).z1


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("randomness", ["same", "different"])
def test_functional_call_round_the_solve(trained: bool, randomness: str):
    x = drawn(3, 4)
    module = Model(None).requires_grad_(trained)
    state = {name: 2 * t.detach() for name, t in module.state_dict().items()}

    def run(adjoint: Any) -> list[Tensor]:
        module.adjoint = adjoint

        def loss(values: Any, row: Tensor) -> Tensor:
            return functional_call(module, values, (row[None],)).square().sum()

        torch.manual_seed(3)
        each = vmap(grad(loss), (None, 0), randomness=randomness)(state, x)
        return [*each.values(), *grad(loss)(state, x[0]).values()]

    for g, w in zip(run(ReversibleAdjoint()), run(UnrolledAdjoint()), strict=True):
        torch.testing.assert_close(g, w, rtol=1e-12, atol=1e-13)


def test_parameters_outside_the_transform_get_their_gradients():
    x, module = drawn(3, 4), nn.Linear(4, 4).double()

    def run(adjoint: Any) -> tuple[Tensor, ...]:
        def loss(a: Tensor) -> Tensor:
            f: Any = lambda z, a: torch.tanh(0.4 * module(z) + a)  # noqa: E731
            return solve(f, x.sin(), a, adjoint=adjoint, max_steps=4).z1.square().sum()

        return torch.autograd.grad(grad(loss)(x).square().sum(), tuple(module.parameters()))

    for g, w in zip(run(ReversibleAdjoint()), run(UnrolledAdjoint()), strict=True):
        torch.testing.assert_close(g, w, rtol=1e-12, atol=1e-13)


def test_a_tensor_given_and_captured_gets_both_gradients():
    z0, weight, shift = leaves()

    def loss(adjoint: Any, a: Tensor) -> Tensor:
        return loss_of(solved(adjoint, a, weight, a, lambda z, given: torch.tanh(z @ weight + given * a)))

    got, want = (grad(loss, 1)(adjoint, z0 + shift) for adjoint in (ReversibleAdjoint(), UnrolledAdjoint()))
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-13)


def test_a_sample_that_is_not_finite_leaves_the_others_alone():
    z0, weight, shift = leaves()
    growth = torch.tensor([0.0, 1e30, 0.0], dtype=torch.float64)

    def loss(adjoint: Any, w: Tensor, z: Tensor, a: Tensor, grow: Tensor) -> Tensor:
        f: Any = lambda z, given: torch.tanh(z @ w + given[0]) + given[1] * z**8  # noqa: E731
        z1 = solve(f, z[None], (a[None], grow), adjoint=adjoint, max_steps=8, throw=False).z1
        return torch.where(grow > 0, 0.0, z1).square().sum()

    def each(adjoint: Any, rows: list[int]) -> Tensor:
        mapped = vmap(grad(loss, 1), (None, None, 0, 0, 0))
        return mapped(adjoint, weight, z0[rows], shift[rows], growth[rows])

    got = each(ReversibleAdjoint(), [0, 1, 2])
    torch.testing.assert_close(got[[0, 2]], each(UnrolledAdjoint(), [0, 2]), rtol=1e-12, atol=1e-13)


def test_a_knob_of_one_early_step_that_moved_is_noticed():
    z0, weight, shift = leaves()
    knob = [1.0]

    def f(z: Tensor, a: Tensor, step: int) -> Tensor:
        return torch.tanh(0.1 * z @ weight + a) * (knob[0] if step == 0 else 1.0)

    out, pulled, *_ = torch.func.vjp(
        lambda a: solve(f, z0, a, adjoint=ReversibleAdjoint(), max_steps=30, with_step=True).z1, shift
    )
    knob[0] = 1.001
    with pytest.raises(GradientError, match="does not repeat"):
        pulled(out)


def test_a_tensor_that_a_later_evaluation_reads_is_refused():
    z0, weight, shift = leaves()
    count = [0]

    def loss(w: Tensor) -> Tensor:
        def f(z: Tensor, a: Tensor) -> Tensor:
            count[0] += 1
            return torch.tanh(z @ (w if count[0] > 3 else weight) + a)

        return loss_of(solved(ReversibleAdjoint(), z0, weight, shift, f))

    with pytest.raises(GradientError, match="did not read in its first evaluation"):
        grad(loss)(weight)


class Product(torch.autograd.Function):
    """An operation that no mode sees."""

    @staticmethod
    def forward(z: Tensor, w: Tensor) -> Tensor:
        return z @ w

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        z, w = ctx.saved_tensors
        return cotangents[0] @ w.T, z.T @ cotangents[0]


def test_a_captured_tensor_that_cannot_be_replaced_is_refused():
    z0, weight, shift = leaves()

    def loss(w: Tensor) -> Tensor:
        f: Any = lambda z, a: torch.tanh(cast(Tensor, Product.apply(z, w)) + a)  # noqa: E731
        return loss_of(solved(ReversibleAdjoint(), z0, weight, shift, f))

    with pytest.raises(GradientError, match="pass it in args"):
        grad(loss)(weight)


@pytest.mark.parametrize("inside", ["vmap", "grad"])
@pytest.mark.parametrize("outside", ["grad", "forward"])
def test_a_captured_tensor_in_a_transform_of_the_functions_own_is_refused(inside: str, outside: str):
    z0, _, shift = leaves()

    def run(scale: Tensor) -> Tensor:
        def energy(z: Tensor, s: Tensor) -> Tensor:
            return (0.1 * (z * s).cosh()).sum()

        def f(z: Tensor, a: Tensor) -> Tensor:
            if inside == "grad":
                return a - grad(energy)(z, scale)
            return a + vmap(lambda row, s: torch.tanh(row * s))(z, scale)

        return solve(f, z0, shift, adjoint=ReversibleAdjoint(), max_steps=2, throw=False).z1.sum()

    with forward_ad.dual_level(), pytest.raises(GradientError, match=r"a torch[.]func transform inside function"):
        grad(run)(shift) if outside == "grad" else run(forward_ad.make_dual(shift, shift))


def test_transforms_of_the_functions_own_are_followed():
    z0, weight, shift = leaves()

    def f(z: Tensor, a: Tensor) -> Tensor:
        slope = jvp(lambda u: (0.3 * u).cosh().log() + 0.1 * a * u, (z,), (z.cos(),))[1]
        return vmap(lambda row: torch.tanh(row @ weight))(z) - 0.3 * slope

    def loss(adjoint: Any, z: Tensor, w: Tensor, a: Tensor) -> Tensor:
        return loss_of(solved(adjoint, z, w, a, f))

    for name in FEW:
        agree(name, loss, (z0, weight, shift))


def test_what_no_derivative_is_there_for_is_refused():
    z0, weight, shift = leaves()

    def loss(w: Tensor) -> Tensor:
        return loss_of(solved(ReversibleAdjoint(), z0, w, shift))

    with pytest.raises(GradientError, match="a third derivative was asked"):
        grad(lambda w: grad(lambda v: grad(loss)(v).square().sum())(w).sum())(weight)
    with pytest.raises(GradientError, match="forward-mode AD was asked twice"):
        jvp(lambda v: jvp(loss, (v,), (weight,))[1], (weight,), (weight,))


def test_cotangents_in_a_batch_of_a_solve_outside_are_refused():
    z0, weight, shift = leaves()
    weight.requires_grad_()
    s = solved(ReversibleAdjoint(), z0, weight, shift)
    rows = torch.stack([s.z1.detach(), s.z1.detach()])
    with pytest.raises(GradientError, match="came in a batch"):
        torch.autograd.grad(s.z1, weight, rows, is_grads_batched=True, retain_graph=True)
    (first,) = torch.autograd.grad(s.z1.sum(), weight, create_graph=True)
    with pytest.raises(GradientError, match="came in a batch"):
        vmap(lambda c: torch.autograd.grad(first, weight, c, retain_graph=True))(torch.stack([first, first]).detach())


@pytest.mark.skipif(torch.__version__ < "2.13", reason="an older torch cannot compile a VJP inside a function")
def test_compiled_half_steps_are_refused():
    with pytest.raises(GradientError, match="give compile=False there"):
        transform("grad", loss_with(solver=Reversible(0.8, compile=True)), ReversibleAdjoint(), leaves())


def test_callbacks_hear_of_the_passes_inside():
    heard: list[Any] = []
    transform("grad of grad", loss_with(), ReversibleAdjoint(on_health=heard.append), leaves())
    assert len(heard) >= 2
    assert all(health.verified for health in heard)


@pytest.mark.parametrize("steps", [1, 7])
def test_evaluations_under_transforms(steps: int):
    z0, weight, shift = leaves()
    count = [0]

    def f(z: Tensor, a: Tensor) -> Tensor:
        count[0] += 1
        return torch.tanh(z @ weight + a)

    def evaluations(run: Callable[[Any], Any]) -> int:
        count[0] = 0
        run(lambda a: solved(ReversibleAdjoint(), z0, weight, a, f, max_steps=steps).z1.sum())
        return count[0]

    # Two find what f draws and reads.
    assert evaluations(lambda loss: vmap(loss)(torch.stack([shift, shift]))) == 2 + 2 * steps
    assert evaluations(lambda loss: grad(loss)(shift)) == 2 + 6 * steps
    assert evaluations(lambda loss: jvp(loss, (shift,), (shift,))) == 2 + 6 * steps


def test_tangents_keep_no_more_states_for_more_steps():
    z0, weight, shift = leaves()

    def greatest(steps: int, run: Callable[[Any], Any]) -> int:
        seen: list[StorageWeakRef] = []
        alive = 0

        def f(z: Tensor, a: Tensor) -> Tensor:
            nonlocal alive, seen
            seen = [ref for ref in seen if not ref.expired()]
            if not is_functorch_wrapped_tensor(z):
                seen.append(StorageWeakRef(z.untyped_storage()))
            alive = max(alive, len(seen))
            return torch.tanh(z @ weight + a)

        run(lambda a: solved(ReversibleAdjoint(), z0, weight, a, f, max_steps=steps).z1)
        return alive

    for run in (lambda f: vmap(f)(torch.stack([shift, shift])), lambda f: jvp(f, (shift,), (shift,))):
        assert greatest(40, run) <= greatest(5, run)
