"""Pictures of training, of what scores are made of, of how far predictions hold, and of items.

Each returns matplotlib Axes, of a new figure that pyplot does not know or those it was given. matplotlib is imported
only when one is drawn.
"""

from .maps import item_map
from .parts import explanation, field_importance, pair_importance
from .predictions import calibration, interval_coverage, predicted_against_actual
from .training import learning_curve, posterior_trace

__all__ = [
    "calibration",
    "explanation",
    "field_importance",
    "interval_coverage",
    "item_map",
    "learning_curve",
    "pair_importance",
    "posterior_trace",
    "predicted_against_actual",
]
