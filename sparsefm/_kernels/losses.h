/* Pointwise losses: value and derivative of ℓ(y, score) for one sample, called through a switch.
 *
 *   squared    ½ (score − y)²                                     y real
 *   logistic   log(1 + e^score) − y · score                       y in {0, 1}
 *   hinge      max(0, 1 − t · score), t = 2 y − 1                 y in {0, 1}
 *   poisson    e^score − y · score                                y ≥ 0; e^score is the mean
 *   huber      ½ r² where |r| ≤ δ, else δ (|r| − ½ δ), r = score − y          Huber 1964
 *   quantile   τ · r where r ≥ 0, else (τ − 1) · r, r = y − score             Koenker & Bassett 1978
 *
 * δ and τ are `shape`. log(1 + e^s) = max(s, 0) + log1p(e^−|s|) never overflows, and its derivative
 * 1 / (1 + e^−s) only ever takes exp of a non-positive number.
 */
#ifndef SPARSEFM_LOSSES
#define SPARSEFM_LOSSES
#include <math.h>

enum { LOSS_SQUARED, LOSS_LOGISTIC, LOSS_HINGE, LOSS_POISSON, LOSS_HUBER, LOSS_QUANTILE };

static inline double loss_of(int loss, double shape, double y, double score, double *gradient) {
    double e, r;
    switch (loss) {
    case LOSS_LOGISTIC:
        e = exp(-fabs(score));
        *gradient = (score >= 0 ? 1 / (1 + e) : e / (1 + e)) - y;
        return (score > 0 ? score : 0) + log1p(e) - y * score;
    case LOSS_HINGE:
        r = 1 - (2 * y - 1) * score;
        *gradient = r > 0 ? 1 - 2 * y : 0;
        return r > 0 ? r : 0;
    case LOSS_POISSON:
        e = exp(score);
        *gradient = e - y;
        return e - y * score;
    case LOSS_HUBER:
        r = score - y;
        if (fabs(r) <= shape) {
            *gradient = r;
            return 0.5 * r * r;
        }
        *gradient = r > 0 ? shape : -shape;
        return shape * (fabs(r) - 0.5 * shape);
    case LOSS_QUANTILE:
        r = y - score;
        *gradient = r > 0 ? -shape : r < 0 ? 1 - shape : 0;
        return r > 0 ? shape * r : (shape - 1) * r;
    default:
        *gradient = score - y;
        return 0.5 * *gradient * *gradient;
    }
}
#endif
