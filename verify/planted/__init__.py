"""Planted faults: small wrong solvers, references and results, each of which must turn the gate red."""
