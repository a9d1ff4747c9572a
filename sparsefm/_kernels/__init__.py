"""The compiled ground floor: the model equation on CSR rows. It trusts its input (validation.py is the door).

isa        which instruction sets run here
csr        checks and transposes of CSR arrays
fm         scores and gradients (fm.h over rows.h)
adaptive   fused training passes (adaptive.h over rows.h)
dispatch   which path, how many threads
"""

from . import adaptive, csr, dispatch, fm, isa

__all__ = ["adaptive", "csr", "dispatch", "fm", "isa"]
