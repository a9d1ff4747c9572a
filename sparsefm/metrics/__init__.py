"""How good predictions are: functions of arrays, which know no model.

Of single predictions: `rmse`, `mae`, `log_loss`, `auc`, `calibration_error`. Of ranked lists and what was relevant:
`precision_at_k`, `recall_at_k`, `hit_rate_at_k`, `mrr_at_k`, `map_at_k`, `ndcg_at_k`. Of ranked lists alone:
`coverage`, `novelty`, `popularity_lift`. Of draws of a number: `split_rhat`, `effective_sample_size`.
Nothing is dropped in silence: missing or infinite numbers, empty input and lengths that differ are errors.

For ranked lists libraries disagree on denominators, so here they are. Precision divides by k, however short
the list or few the relevant items. Recall and average precision divide by the number of all relevant items of the
user, however small k. The ideal of NDCG holds all relevant items of the user, up to k of them,
whether or not they were shown. The mean is over users who have a relevant item.
"""

from .catalogue import coverage, novelty, popularity_lift
from .draws import effective_sample_size, split_rhat
from .predictions import auc, calibration_error, log_loss, mae, rmse
from .relevance import OF_HITS as OF_HITS  # for `evaluation`, which counts hits by itself
from .relevance import hit_rate_at_k, map_at_k, mrr_at_k, ndcg_at_k, precision_at_k, recall_at_k

__all__ = [
    "auc",
    "calibration_error",
    "coverage",
    "effective_sample_size",
    "hit_rate_at_k",
    "log_loss",
    "mae",
    "map_at_k",
    "mrr_at_k",
    "ndcg_at_k",
    "novelty",
    "popularity_lift",
    "precision_at_k",
    "recall_at_k",
    "rmse",
    "split_rhat",
]
