"""Recorded results of machines that continuous integration does not have."""

from reports.evidence.recorded import EVIDENCE as EVIDENCE, recorded_results as recorded_results
