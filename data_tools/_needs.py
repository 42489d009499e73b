"""What to do where a page is started by a Python without the packages: the virtual environment is forgotten.

Torch is not asked for: packing, ``init`` and ``hosts`` need none.
"""

import sys
from importlib.util import find_spec

if missing := [name for name in ("megarc", "numpy", "pydantic") if find_spec(name) is None]:
    print(
        f"error: {sys.executable} has no {', '.join(missing)}; give `make install` once and "
        "`source .venv/bin/activate` in each shell, or `pip install` the project into this environment",
        file=sys.stderr,
    )
    sys.exit(2)
