"""Claims about f as a map: it returns what z is, repeats to the bit, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from revdeq._tree import Leaves
from revdeq.function.linearisation import difference
from verify.module.finding import Finding, Outcome, judged
from verify.module.specimen import Specimen


def check_returns(specimen: Specimen) -> Iterator[Finding]:
    """f(z0, args) has the structure, shapes, dtypes and device of z0, and is finite.

    How this can fail: all but the last is refused where the specimen is made.
    """
    broken = [
        name
        for name, leaf in zip(specimen.state_names, specimen.value, strict=True)
        if not bool(torch.isfinite(leaf).all())
    ]
    shapes = ", ".join(f"{tuple(leaf.shape)} {str(leaf.dtype).removeprefix('torch.')}" for leaf in specimen.z0)
    yield judged(
        "returns",
        not broken,
        f"f(z0, args) is not finite at {broken[0]}" if broken else f"f(z0, args) is finite and looks like z0, {shapes}",
        "structure, shapes, dtypes and device of z0, finite",
        "start at a state where f is finite, and look at the inputs for NaN",
    )


def check_one_map(specimen: Specimen) -> Iterator[Finding]:
    """The same state gives the same bits, whatever was evaluated in between, without a graph and with one.

    Random numbers are the same in every evaluation, and buffers that f updates are put back, as in a solve. How this
    can fail: a value that depends on what came before (a counter, a cache, Python's random numbers, data read anew), a
    kernel that sums in another order every time, code that asks whether there is a graph.
    """
    other = specimen.evaluate(specimen.z0)
    graphs = (False, False, False, True, True, True)
    states = (specimen.z0, other, specimen.z0) * 2
    seen = [_value(specimen, at, graph=graph) for at, graph in zip(states, graphs, strict=True)]
    again = max(difference(seen[0], seen[2]), difference(seen[3], seen[5]))
    graph = max(difference(a, b) for a, b in zip(seen[:3], seen[3:], strict=True))
    if again:
        found = f"f(z0) evaluated again differs by {again:.3g} of its norm"
        advice = (
            "look for what changes from call to call: counters, caches, numpy's or Python's random numbers; on a GPU, "
            "set torch.use_deterministic_algorithms(True)"
        )
    else:
        found = f"f with a graph differs by {graph:.3g} of its norm from f without"
        advice = "make what f does independent of grad mode: a solve evaluates it without a graph, backward with one"
    holds = again == 0 and graph == 0
    yield judged(
        "one-map",
        holds,
        "f repeats to the bit, without a graph and with one" if holds else found,
        "not a bit, for backward evaluates f again and must find the same numbers",
        advice,
        max(again, graph),
    )


def check_leaves_no_trace(specimen: Specimen) -> Iterator[Finding]:
    """An evaluation changes no tensor that f is given or reads, once all that a solve puts back is put back.

    How this can fail: f writes into its args, or into parameters or buffers by `.data` or from outside torch.
    """
    before = {name: tensor.detach().clone() for name, tensor in specimen.tensors().items()}
    specimen.evaluate(specimen.z0)
    changed = [name for name, tensor in specimen.tensors().items() if not _same(tensor, before[name])]
    yield judged(
        "leaves-no-trace",
        not changed,
        f"an evaluation changes {', '.join(changed)}" if changed else "an evaluation changes nothing that f reads",
        "nothing, for every evaluation of a solve must find what the first one found",
        "write the change out of place, or keep it outside f",
    )
    learnt = [f"it updates {', '.join(specimen.changes)}"] if specimen.changes else []
    learnt += ["it draws random numbers, the same ones at every evaluation of a solve"] if specimen.draws else []
    if learnt:
        yield Finding(
            claim="leaves-no-trace",
            outcome=Outcome.NOTED,
            found=f"f is one map within a solve and another one from solve to solve: {'; '.join(learnt)}",
            allowed="anything that a solve can put back",
            advice="call .eval() on the module where you want the same result every time",
        )


def check_rows(specimen: Specimen) -> Iterator[Finding]:
    """Whether dimension 0 of the state counts samples that do not read each other.

    For each binary digit of the row's number the rows that have it are moved and the others watched, and the other way
    round, so that every pair of rows is told apart by one of them. How this can fail: rows that read each other only
    at states other than z0.
    """
    z0 = specimen.z0
    count = z0[0].shape[0] if z0[0].ndim else 0
    if not all(leaf.ndim >= 2 and leaf.shape[0] == count for leaf in z0) or count < 2:
        yield Finding(
            claim="rows",
            outcome=Outcome.NOTED,
            found="the whole state is one sample",
            allowed="dimension 0 counts samples where all leaves have two dimensions or more and agree in the first",
        )
        return
    plain = _value(specimen, z0, graph=False)
    number = torch.arange(count)
    generator = torch.Generator().manual_seed(0)
    for digit in range((count - 1).bit_length()):
        has = (number >> digit) & 1 == 1
        for moved in (has, ~has):
            value = _value(specimen, tuple(_moved(leaf, moved, generator) for leaf in z0), graph=False)
            read = [
                int(i) for i in number[~moved] if not all(_same(a[i], b[i]) for a, b in zip(value, plain, strict=True))
            ]
            if read:
                yield Finding(
                    claim="rows",
                    outcome=Outcome.NOTED,
                    found=f"row {read[0]} of f(z) changes when other rows of z do: rows are not independent samples",
                    allowed="either",
                    advice="give batch_dims=0 to solve, so that the whole state is one sample and stops as one; "
                    "in evaluation mode normalisation over the batch does not couple rows",
                )
                return
    yield Finding(
        claim="rows",
        outcome=Outcome.HOLDS,
        found=f"the {count} rows of f(z) do not read each other: each is a sample that may stop by itself",
        allowed="either",
    )


def _value(specimen: Specimen, z: Leaves, *, graph: bool) -> Leaves:
    with torch.set_grad_enabled(graph):
        at = tuple(leaf.clone().requires_grad_(graph) for leaf in z)
        return tuple(leaf.detach() for leaf in specimen.evaluate(at))


def _moved(leaf: Tensor, rows: Tensor, generator: torch.Generator) -> Tensor:
    step = torch.randn(leaf.shape, generator=generator, dtype=torch.float64).to(leaf.device, leaf.dtype)
    chosen = rows.to(leaf.device).reshape(-1, *[1] * (leaf.ndim - 1))
    return torch.where(chosen, leaf + step * leaf.abs().amax().clamp(min=1.0), leaf)


def _same(a: Tensor, b: Tensor) -> bool:
    return bool(((a == b) | ((a != a) & (b != b))).all())
