"""Reversible deep equilibrium models: solvers and adjoints for fixed points in PyTorch."""
