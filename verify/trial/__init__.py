"""What checks are given and are made of: a case with its subject, what was observed of it, ratios, bits and rates."""

from verify.trial.references import References as References
from verify.trial.trial import Trial as Trial
