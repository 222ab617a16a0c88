"""The same training step by the official JAX library, in its own environment; writes rows for `--peer-rows`.

    python benchmarks/jax_step.py --out jax.json          (with jax, equinox and the JAX package `revdeq` importable)

It must be run as a file and not with -m, and outside the environment of this package: both packages are called revdeq.
Everything is jitted, the floor too (2N evaluations, then 2N evaluations with a VJP each, chained by a data dependence
so that the compiler keeps them all).
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp

import revdeq


def cell(z, x, parameters, heads):
    """Return the transformer cell of revdeq.nn.Transformer (PyTorch) with the same shapes."""
    p = parameters
    batch, tokens, width = z.shape
    u = z + x
    q, k, v = (t.reshape(batch, tokens, heads, -1).transpose(0, 2, 1, 3) for t in jnp.split(u @ p["qkv"], 3, axis=-1))
    weights = jax.nn.softmax(q @ k.transpose(0, 1, 3, 2) / jnp.sqrt(width // heads), axis=-1)
    seen = (weights @ v).transpose(0, 2, 1, 3).reshape(batch, tokens, width)
    h = normalised(u + seen @ p["mixed"] + p["mixed_bias"], p["scale1"], p["shift1"])
    hidden = jax.nn.gelu(h @ p["in"] + p["in_bias"], approximate=False)
    return normalised(h + hidden @ p["out"] + p["out_bias"], p["scale2"], p["shift2"])


def normalised(u, scale, shift):
    """Return the layer normalisation of u over its last dimension."""
    centred = u - u.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * scale + shift


def made(width, batch, tokens):
    """Return parameters, input and cotangent, with PyTorch's default scales."""
    keys = iter(jax.random.split(jax.random.PRNGKey(0), 6))

    def uniform(inputs, outputs):
        bound = inputs**-0.5
        return jax.random.uniform(next(keys), (inputs, outputs), minval=-bound, maxval=bound)

    parameters = {
        "qkv": uniform(width, 3 * width),
        "mixed": uniform(width, width),
        "in": uniform(width, 4 * width),
        "out": uniform(4 * width, width),
        "mixed_bias": jnp.zeros(width),
        "in_bias": jnp.zeros(4 * width),
        "out_bias": jnp.zeros(width),
    }
    for name in ("scale1", "scale2"):
        parameters[name] = jnp.ones(width)
    for name in ("shift1", "shift2"):
        parameters[name] = jnp.zeros(width)
    x, cotangent = jax.random.normal(next(keys), (2, batch, tokens, width))
    return parameters, x, cotangent


def steps_of(width, options):
    """Return the jitted floor and training step."""
    heads = max(1, width // 32)
    parameters, x, cotangent = made(width, options.batch, options.tokens)
    z0 = jnp.zeros_like(x)
    count = 2 * options.steps

    def function(z, args):
        return cell(z, args[0], args[1], heads)

    @jax.jit
    def floor(x, parameters):
        z = jax.lax.fori_loop(0, count, lambda _, z: function(z, (x, parameters)), z0)

        def body(_, carry):
            z, total = carry
            value, pull = jax.vjp(lambda z, args: function(z, args), z, (x, parameters))
            _, by_args = pull(cotangent)
            return value, jax.tree.map(jnp.add, total, by_args)

        zeros = jax.tree.map(jnp.zeros_like, (x, parameters))
        return jax.lax.fori_loop(0, count, body, (z, zeros))

    @jax.jit
    def step(x, parameters):
        def loss(args):
            found = revdeq.solve(
                function,
                z0,
                args,
                revdeq.Reversible(beta=options.beta),
                revdeq.ReversibleAdjoint(),
                tol=1e-30,  # at 0 the library takes no step at all
                max_steps=options.steps,
            )
            return jnp.sum(found.z1 * cotangent)

        return jax.grad(loss)((x, parameters))

    return {"floor": lambda: floor(x, parameters), "step": lambda: step(x, parameters)}


def main():
    """Time and write the rows."""
    parser = argparse.ArgumentParser(description="Time a training step of the JAX library revdeq.")
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 128, 256, 512])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=448)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--beta", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--clock", choices=["wall", "process"], default="wall")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    rows = []
    for width in options.widths:
        chosen = steps_of(width, options)
        for run in chosen.values():
            jax.block_until_ready(run())
        seconds = {name: [] for name in chosen}
        for _ in range(options.rounds):
            for name, run in chosen.items():
                start = clock()
                jax.block_until_ready(run())
                seconds[name].append(clock() - start)
        shared = {"width": width, "batch": options.batch, "tokens": options.tokens, "num_steps": options.steps}
        shared |= {
            "beta": options.beta,
            "rounds": options.rounds,
            "clock": options.clock,
            "device": jax.devices()[0].platform,
        }
        for name, label in (("floor", "JAX floor, jitted"), ("step", "JAX revdeq, jitted")):
            low, median, high = statistics.quantiles(seconds[name], n=4)
            ratio = statistics.median(s / f for s, f in zip(seconds[name], seconds["floor"], strict=True))
            row = {"method": label, **shared, "median_seconds": median, "low_seconds": low, "high_seconds": high}
            rows.append(row | {"ratio_to_floor": ratio, "floor": "JAX floor, jitted"})
    environment = {"jax": jax.__version__}
    options.out.write_text(json.dumps({"environment": environment, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
