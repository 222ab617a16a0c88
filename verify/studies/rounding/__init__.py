"""The study of round-off: what each way to the gradient loses and costs, beside what is predicted."""

from verify.studies.rounding.study import roundoff_curves as roundoff_curves
