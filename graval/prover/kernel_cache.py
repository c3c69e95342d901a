"""Triton's kernel cache inside a prover bundle: read-only, and of use wherever it is mounted.

Where on its path: the bundle's launcher names `BundledKernels` in TRITON_CACHE_MANAGER; Triton asks
it for each kernel, launcher and driver module. Triton's own cache notes a kernel's files by their
absolute paths; here they are taken from the folder that the cache lies in. Invariant: nothing is
compiled from a bundle: a kernel that it lacks is an error that says so.
"""

import json
import os

from triton.runtime.cache import FileCacheManager

from graval.errors import BackendUnavailable


class BundledKernels(FileCacheManager):  # type: ignore[misc] # Triton has no types
    """The cache entry of one key; writable only while the bundle is built."""

    def __init__(self, key: str, *, override: bool = False, dump: bool = False) -> None:
        """Open the entry.

        Raises:
            BackendUnavailable: the bundle has none.
        """
        folder = os.path.join(os.environ["TRITON_CACHE_DIR"], key)
        if "GRAVAL_BUNDLE_BUILD" not in os.environ and not os.path.isdir(folder):
            raise BackendUnavailable(
                "kernel_missing",
                "this prover bundle has no compiled kernel for this GPU",
                hint="build a bundle on a machine with such a GPU (scripts/build_prover_bundle.py)",
            )
        super().__init__(key, override=override, dump=dump)

    def get_group(self, filename: str) -> dict[str, str] | None:
        """Return the files of a kernel by name, in this entry's folder."""
        noted = self.get_file(f"__grp__{filename}")
        if noted is None:
            return None
        with open(noted, encoding="utf-8") as file:
            names = json.load(file)["child_paths"]
        return {name: path for name in names if (path := self.get_file(name)) is not None}
