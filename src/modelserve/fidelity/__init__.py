"""Did the answers change? Two models are asked the same, and every difference is measured.

    samples ──► reference ──┐
            └─► candidate ──┴─► FidelityReport: errors, changed decisions, a verdict with its reason

A number is close when it differs by at most `absolute + relative * (largest magnitude in its row)`.
A decision (a label) must be equal; where it is not, it counts as changed unless the reference's own scores tie within
the tolerance.
"""

from modelserve.fidelity.comparison import Answer, Comparison, Sample, compare
from modelserve.fidelity.report import FidelityReport, OutputFidelity, Tolerance, default_tolerance, wilson_interval
from modelserve.fidelity.rows import rows_are_independent

__all__ = [
    "Answer",
    "Comparison",
    "FidelityReport",
    "OutputFidelity",
    "Sample",
    "Tolerance",
    "compare",
    "default_tolerance",
    "rows_are_independent",
    "wilson_interval",
]
