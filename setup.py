"""Builds the kernels; everything else about the package is in setup.cfg."""

import platform
import sys

from Cython.Build import cythonize
from setuptools import Extension, setup

KERNELS = ["isa", "csr", "fm", "adaptive"]

# The limited API makes one wheel a platform serve every Python from 3.11 on. Instruction sets are chosen at
# run time (sparsefm/_kernels/instances.h), so no flag here narrows where the wheel runs.
if sys.platform == "win32":
    flags = ["/O2"]
else:
    flags = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-g0"]
    if platform.system() == "Linux":
        flags.append("-Wno-psabi")

setup(
    ext_modules=cythonize(
        [
            Extension(
                f"sparsefm._kernels.{name}",
                [f"sparsefm/_kernels/{name}.pyx"],
                depends=[
                    f"sparsefm/_kernels/{header}.h" for header in ("instances", "rows", "fm", "adaptive", "losses")
                ],
                define_macros=[("Py_LIMITED_API", "0x030B0000")],
                py_limited_api=True,
                extra_compile_args=flags,
            )
            for name in KERNELS
        ],
        language_level=3,
    )
)
