"""Read arrays from a MATLAB file in a process of its own, because a damaged file can crash the reader.

python -m csametric.data.matfile FILE NAME...  writes the named arrays to the standard output, as .npz.
"""

import io
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from csametric.errors import UserError

MAX_BYTES = 64 * 2**20  # a split of CUHK03 has 40 KB
SECONDS = 60
_MATLAB_5, _HDF5 = b"MATLAB 5.0", b"\x89HDF"


def read_mat(path: Path, names: Sequence[str]) -> dict[str, NDArray]:
    """Read arrays from a MATLAB file of version 5 to 7; texts become arrays of strings.

    Raises:
        UserError: the file is too large, of another version or damaged, or an array is missing.
    """
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path} is larger than {MAX_BYTES // 2**20} MiB; take the split from its authors again")
    with path.open("rb") as content:
        start = content.read(128)
    if start.startswith(_HDF5) or b"MATLAB 7.3" in start:
        raise UserError(f"{path} has MATLAB's format 7.3; save it with -v7, or give the split as .json or csv:")
    if not start.startswith(_MATLAB_5):
        raise UserError(f"{path} is not a MATLAB file; download it again")
    command = [sys.executable, "-m", "csametric.data.matfile", str(path), *names]
    try:
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{path} cannot be read within {SECONDS} s; download it again") from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        problem = lines[-1] if lines and done.returncode > 0 else "the reader crashed"
        raise UserError(f"{path} is damaged ({problem}); download it again")
    with np.load(io.BytesIO(done.stdout), allow_pickle=False) as arrays:
        return dict(arrays)


def main() -> None:
    """Read the file named on the command line."""
    from scipy.io import loadmat

    path, *names = sys.argv[1:]
    content = loadmat(path, squeeze_me=True)
    arrays = {name: np.atleast_1d(content[name]) for name in names}
    plain = {name: array.astype(str) if array.dtype == object else array for name, array in arrays.items()}
    out = io.BytesIO()
    np.savez(out, allow_pickle=False, **plain)
    sys.stdout.buffer.write(out.getvalue())


if __name__ == "__main__":
    main()
