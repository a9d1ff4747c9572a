/* Fused training of pairs (epoch.h), a loop of its own for each optimiser and the ranks that matter. */
#include "epoch.h"

LOCAL void FN(epoch)(epoch_args *a, const step_args *step) {
    const int nvec = (int)(a->kp / W), unit = a->data == NULL && a->dropout == 0;
#define EPOCH(N, K, O, U) FN(epoch_rows)(N, K, O, U, 0, a, step)
#define EPOCH_OF(O)                                  \
    do {                                             \
        if (unit) FOR_FEW_RANKS(nvec, EPOCH, O, 1)   \
        else FOR_FEW_RANKS(nvec, EPOCH, O, 0)        \
    } while (0)
    FOR_OPTIMISER(step->optimiser, EPOCH_OF)
#undef EPOCH_OF
#undef EPOCH
}

#undef vec
#undef mask_t
#undef params_t
#undef step_t
#undef visit_t
