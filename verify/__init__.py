"""The harness: measures equilibrium solvers against references, and judges the measurements."""
