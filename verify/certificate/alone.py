"""Puts the modules of the kernel together into one program that needs python-flint alone."""

from __future__ import annotations

import ast
import importlib.resources


MODULES = (
    "numbers",
    "rows",
    "code",
    "runner",
    "machine",
    "enclosures",
    "problem",
    "fixed_points",
    "steps",
    "prove",
    "claims",
    "sets",
    "bits",
    "conclusions",
    "drawn",
    "check",
)
"""In an order in which they can be run."""

DOCUMENTATION = """Check a certificate again.

Needs python-flint and nothing of this project: python recheck.py certificate.json

The certificate holds the function as a straight-line program of exact constants, sums, products and elementary
functions, recorded from its forward graph, and the numbers from which its claims are proved. This program runs it in
ball arithmetic, differentiates it by itself, and proves every claim again:

    fixed point   N(Z) = c - C (c - f(c)) + (I - C (I - K(Z))) (Z - c) lies inside Z, and inside what is claimed
    contraction   ||K(Z)||_2 <= ||U^T K V|| / sqrt((1 - ||U^T U - I||) (1 - ||V^T V - I||)) is at most what is claimed
    implicit      (I - K^T) w = c solved in balls, pulled back, lies inside what is claimed
    N steps       the recursion and its adjoint, run in balls, lie inside what is claimed
    direction     the recursion with the derivative along one direction carried forward lies inside what is claimed
    no solution   a component of f(z0) - z0 + (K(Z) - I) (Z - z0) excludes 0 over the box Z round z0
    set           about z*, for all inputs of a box, C J (x - x0) + (I - C (I - K)) (Z - z*) lies inside Z
    confirmed     torch's own backward, recorded beside f, gives the same numbers

From these it derives everything that people read, answers, sentences and bits right, and compares it with what the file
says. K is the derivative of the recorded f: reverse differentiation of its elementary operations, each slope an
enclosure over the box. Where the greater of two numbers or a sign is not decided over the box, the slope is the hull of
both sides, which encloses Clarke's generalised derivative; every other comparison must be decided, else nothing is
proved.

It prints a line for each claim and exits with 0 if all hold, 1 if one fails, 2 if the file cannot be read.

References: F. H. Clarke, Optimization and Nonsmooth Analysis (1983), theorems 2.3.9 and 2.6.5; R. Krawczyk, Computing 4
(1969), doi:10.1007/BF02234767; S. M. Rump, BIT 51 (2011), doi:10.1007/s10543-010-0294-0.
"""


def recheck_program() -> str:
    """The text of recheck.py."""
    imports: set[str] = set()
    bodies: list[str] = []
    for name in MODULES:
        source = importlib.resources.files("verify.certificate.kernel").joinpath(f"{name}.py").read_text("utf-8")
        tree = ast.parse(source)
        last = 0
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and node.module == "__future__":
                last = node.end_lineno or last
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                last = node.end_lineno or last
                if not (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("verify.")):
                    imports.add(ast.unparse(node))
        bodies.append("\n".join(source.split("\n")[last:]).strip("\n"))
    head = f'"""{DOCUMENTATION}"""\n\nfrom __future__ import annotations\n\n' + "\n".join(sorted(imports))
    tail = 'if __name__ == "__main__":\n    sys.exit(main(sys.argv[1:]))\n'
    return "\n\n\n".join([head, *bodies, tail])
