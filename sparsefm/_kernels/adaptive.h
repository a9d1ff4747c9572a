/* Fused training of pairs (epoch.h), a loop of its own for each optimiser and the ranks that matter. */
#include "epoch.h"

LOCAL void FN(epoch)(epoch_args *a, const step_args *step) {
    const int nvec = (int)(a->kp / W), unit = a->data == NULL && a->dropout == 0;
#define EPOCH(N, K, O)                                                    \
    do { /* of a known rank a loop for values of one and another for all */ \
        if ((K) && unit) FN(epoch_rows)(N, K, O, 1, 0, a, step);          \
        else FN(epoch_rows)(N, K, O, (K) ? 0 : unit, 0, a, step);         \
    } while (0)
#define EPOCH_OF(O) FOR_FEW_RANKS(nvec, EPOCH, O)
    FOR_OPTIMISER(step->optimiser, EPOCH_OF)
#undef EPOCH_OF
#undef EPOCH
}

#undef vec
#undef mask_t
#undef params_t
#undef step_t
#undef visit_t
