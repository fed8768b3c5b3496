"""What a worker gets to know of this process's environment: what LiteRT and PyTorch need, and no secrets."""

from __future__ import annotations

import os
import re
import site
from collections.abc import Mapping
from pathlib import Path

_KEPT = re.compile(
    # Where programs and libraries are, and how text is encoded.
    "PATH|LD_LIBRARY_PATH|LD_PRELOAD|DYLD_.*|PYTHON.*|LANG|LANGUAGE|LC_.*|TZ|CONDA_PREFIX|VIRTUAL_ENV|SYSTEMROOT|"
    # What decides how fast numbers are computed: timings must be those that the user asked for.
    "OMP_.*|GOMP_.*|KMP_.*|OPENBLAS_.*|MKL_.*|BLIS_.*|MALLOC_.*|GLIBC_TUNABLES|XNNPACK_.*|TF_.*|TFLITE_.*|LITERT_.*|"
    "CUDA_.*|CUDNN_.*|CUBLAS_.*|NVIDIA_.*|NV_.*|NCCL_.*|TORCH_.*|PYTORCH_.*|TRITON_.*"
)
_SECRET = re.compile("TOKEN|SECRET|PASSWORD|CREDENTIAL|_KEY$", re.IGNORECASE)


def worker_environment(folder: Path, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables for a worker whose home, temporary and working folder is `folder`."""
    given = os.environ if environ is None else environ
    kept = {name: value for name, value in given.items() if _KEPT.fullmatch(name) and not _SECRET.search(name)}
    if paths := kept.get("PYTHONPATH"):
        # Relative ones were meant from here.
        kept["PYTHONPATH"] = os.pathsep.join(str(Path(path).absolute()) for path in paths.split(os.pathsep) if path)
    # What `pip install --user` installed lies in the user's home.
    kept.setdefault("PYTHONUSERBASE", site.getuserbase())
    return {**kept, "HOME": str(folder), "TMPDIR": str(folder), "AMC_LATENCY_WORKER_FOLDER": str(folder)}
