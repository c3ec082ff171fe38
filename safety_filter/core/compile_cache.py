"""Where compiled code is kept between runs.

numba looks only at the file of the outermost function when it decides whether cached code is
current, so an edit in rows.py would go unnoticed by kernel.py. The cache's folder therefore
carries a hash of all sources with compiled functions.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

VARIABLE = 'NUMBA_CACHE_DIR'
PREFIX = 'safety_filter-'


def use_cache_of_these_sources() -> None:
    """Point numba at a cache folder for these sources, below NUMBA_CACHE_DIR where that is set.

    Where no folder can be made, numba's own rules stand.
    """
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob('*.py')):
        text = path.read_bytes()
        if b'nb.njit' in text:
            digest.update(text)
    given = os.environ.get(VARIABLE)
    home = os.environ.get('XDG_CACHE_HOME') or os.path.join(os.path.expanduser('~'), '.cache')
    parent = Path(given or home)
    if parent.name.startswith(PREFIX):  # set by the process that started this one
        parent = parent.parent
    folder = parent / (PREFIX + digest.hexdigest()[:16])
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if not os.access(folder, os.W_OK):
        return
    os.environ[VARIABLE] = str(folder)
    numba = sys.modules.get('numba')
    if numba is not None:
        numba.config.CACHE_DIR = str(folder)
