"""The compiled ground floor: the model equation on CSR rows. It trusts its input (validation.py is the door).

isa        which instruction sets run here
csr        checks and transposes of CSR arrays
fm         scores and gradients (fm.h over rows.h)
adaptive   fused training passes (adaptive.h over rows.h and steps.h)
minibatch  deterministic minibatches (minibatch.h over the same)
dispatch   which path, how many threads

`dense` (dense rows) and `rowsteps` (steps on torch's row-sparse gradients) are the torch wing's, loaded by it.
"""

from . import adaptive, csr, dispatch, fm, isa, minibatch

__all__ = ["adaptive", "csr", "dispatch", "fm", "isa", "minibatch"]
