/* Pointwise losses: value and derivative of ℓ(y, score) for one sample, called through a switch.
 *
 *   squared    ½ (score − y)²                      y real
 *   logistic   log(1 + e^score) − y · score        y in {0, 1}
 *
 * log(1 + e^s) = max(s, 0) + log1p(e^−|s|) never overflows, and its derivative 1 / (1 + e^−s) only ever
 * takes exp of a non-positive number.
 */
#ifndef SPARSEFM_LOSSES
#define SPARSEFM_LOSSES
#include <math.h>

enum { LOSS_SQUARED = 0, LOSS_LOGISTIC = 1 };

static inline double loss_logistic(double y, double score, double *gradient) {
    const double e = exp(-fabs(score));
    *gradient = (score >= 0 ? 1 / (1 + e) : e / (1 + e)) - y;
    return (score > 0 ? score : 0) + log1p(e) - y * score;
}

static inline double loss_squared(double y, double score, double *gradient) {
    *gradient = score - y;
    return 0.5 * *gradient * *gradient;
}

static inline double loss_of(int loss, double y, double score, double *gradient) {
    return loss == LOSS_LOGISTIC ? loss_logistic(y, score, gradient) : loss_squared(y, score, gradient);
}
#endif
