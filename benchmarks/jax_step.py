"""The same training step by the official JAX library revdeq, in its own environment, driven by `jax_peer`.

It is started as a file by the interpreter of that environment, and not with -m, because both packages are called
revdeq. It reads a problem from a file, writes its results to another and says which JAX it is. Then it takes one step
for each line that it is sent ("floor", "step"), answering with the seconds.

Everything is jitted, the floor too: 2N evaluations, then 2N evaluations with a VJP each, chained by a data dependence
so that the compiler keeps them all.
"""

import json
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

import revdeq


def cell(z, x, parameters, heads):
    """Return what revdeq.nn.Transformer (PyTorch) does with parameters of these names, weights as (outputs, inputs)."""

    def linear(name, u):
        return u @ parameters[f"{name}.weight"].T + parameters[f"{name}.bias"]

    def normalised(name, u):
        centred = u - u.mean(-1, keepdims=True)
        scaled = centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return scaled * parameters[f"{name}.weight"] + parameters[f"{name}.bias"]

    batch, tokens, width = z.shape
    u = z + x
    projected = jnp.split(u @ parameters["query_key_value.weight"].T, 3, axis=-1)
    q, k, v = (t.reshape(batch, tokens, heads, -1).transpose(0, 2, 1, 3) for t in projected)
    weights = jax.nn.softmax(q @ k.transpose(0, 1, 3, 2) / jnp.sqrt(width // heads), axis=-1)
    seen = (weights @ v).transpose(0, 2, 1, 3).reshape(batch, tokens, width)
    h = normalised("norm1", u + linear("mixed", seen))
    hidden = jax.nn.gelu(linear("mlp.0", h), approximate=False)
    return normalised("norm2", h + linear("mlp.2", hidden))


def jitted(problem):
    """Return the floor and the training step (final state and gradients), both jitted, as calls without arguments."""
    heads, steps, beta = (problem[name].item() for name in ("heads", "num_steps", "beta"))
    x, cotangent = jnp.asarray(problem["x"]), jnp.asarray(problem["cotangent"])
    # The parameters are what has a dot in its name.
    parameters = {name: jnp.asarray(problem[name]) for name in problem if "." in name}
    z0 = jnp.zeros_like(x)
    count = 2 * steps

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
                revdeq.Reversible(beta=beta),
                revdeq.ReversibleAdjoint(),
                tol=1e-30,  # at 0 the library takes no step at all
                max_steps=steps,
            )
            return jnp.sum(found.z1 * cotangent), found.z1

        gradients, z1 = jax.grad(loss, has_aux=True)((x, parameters))
        return z1, gradients

    return {"floor": lambda: floor(x, parameters), "step": lambda: step(x, parameters)}


def main():
    """Answer the lines on the standard input."""
    problem_file, results_file, clock_name = sys.argv[1:]
    clock = time.process_time if clock_name == "process" else time.perf_counter
    runs = jitted(np.load(problem_file))
    z1, (by_x, by_parameters) = jax.block_until_ready(runs["step"]())
    np.savez(results_file, z1=z1, x=by_x, **by_parameters)
    jax.block_until_ready(runs["floor"]())
    said = {"jax": jax.__version__, "device": jax.devices()[0].platform}
    print(json.dumps(said), flush=True)
    for line in sys.stdin:
        run = runs[line.strip()]
        start = clock()
        jax.block_until_ready(run())
        print(clock() - start, flush=True)


if __name__ == "__main__":
    main()
