"""Builds the kernels; everything else about the package is in setup.cfg."""

import os
import sys

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# The limited API makes one wheel a platform serve every Python from 3.11 on. Instruction sets are chosen at
# run time (sparsefm/_kernels/instances.h), so no flag here narrows where the wheel runs.
if sys.platform == "win32":
    FLAGS = ["/O2", "/std:c11", "/Zc:preprocessor", "/utf-8"]
else:
    FLAGS = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-g0", "-Wno-unknown-warning-option"]
    FLAGS += ["-Wno-psabi"]  # gcc notes that passing wide vectors differs between its versions; ours stay inside
    FLAGS += ["-fno-asynchronous-unwind-tables"]  # nothing is thrown through C, and nobody debugs a wheel
    FLAGS += ["-Wno-discarded-qualifiers"]  # in the code Cython writes for const buffers

_BODIES = ("instances", "rows", "fm", "dense", "losses", "steps", "adaptive", "team", "minibatch", "rowsteps")
_BODIES += ("random", "gibbs", "families", "epoch", "family")
HEADERS = [f"sparsefm/_kernels/{name}.h" for name in _BODIES]


class BuildKernels(build_ext):
    """Translates when it compiles, not whenever a tool asks for metadata; all cores compile."""

    def finalize_options(self):
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def build_extensions(self):
        from Cython.Build import cythonize

        translated = cythonize(self.extensions, language_level=3, nthreads=0)
        sources = {extension.name: extension.sources for extension in translated}
        for extension in self.extensions:
            extension.sources = sources[extension.name]
        super().build_extensions()


def extension(name, headers):
    return Extension(
        f"sparsefm.{name}",
        [f"sparsefm/{name.replace('.', '/')}.pyx"],
        depends=headers,
        define_macros=[("Py_LIMITED_API", "0x030B0000")],
        py_limited_api=True,
        extra_compile_args=FLAGS,
        extra_link_args=["-s"] if sys.platform == "linux" else [],
    )


setup(
    cmdclass={"build_ext": BuildKernels},
    ext_modules=[
        *(
            extension(f"_kernels.{name}", HEADERS)
            for name in ("isa", "csr", "fm", "dense", "adaptive", "minibatch", "rowsteps", "gibbs", "family")
        ),
        *(extension(f"_kernels.{name}", [*HEADERS, f"sparsefm/_kernels/{name}.h"]) for name in ("ranking", "topk")),
        extension("datasets._text", ["sparsefm/datasets/_text.h"]),
    ],
)
