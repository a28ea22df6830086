"""Take the pins in colab-requirements.txt from Colab's own list of packages.

    python tests/notebooks/refresh_colab.py FREEZE

FREEZE is pip-freeze.txt of googlecolab/backend-info. Each package named in the upper
part of our file gets Colab's version; one that Colab does not list loses its pin. The
lower part, what those packages need, is dropped: pip finds it anew.
"""

import re
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("colab-requirements.txt")
LOWER_PART = "# What those need"
# "numpy==2.0.2", or "torch @ https://…/torch-2.9.0%2Bcu126-cp312-…whl"
PIN = re.compile(r"^([\w.-]+)(?:==| @ .*/[\w.]+-)(\d[\w.]*)")


def pins(freeze: str) -> dict[str, str]:
    """Return the version of each package in a list; local parts (+cu126) are left out.

    >>> pins("torch @ https://x/torch-2.9.0%2Bcu126-cp312.whl")
    {'torch': '2.9.0'}
    """
    found = filter(None, map(PIN.match, freeze.splitlines()))
    return {same(match[1]): match[2] for match in found}


def same(name: str) -> str:
    """Return a package's name as registries compare names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def refresh(ours: str, freeze: str) -> str:
    """Return our file with the versions of the list."""
    colab = pins(freeze)
    lines = []
    for line in ours.partition(LOWER_PART)[0].rstrip().splitlines():
        match = PIN.match(line)
        if match:
            version = colab.get(same(match[1]))
            line = f"{match[1]}=={version}" if version else match[1]
        lines.append(line)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python tests/notebooks/refresh_colab.py FREEZE")
    fresh = refresh(
        REQUIREMENTS.read_text(encoding="utf-8"),
        Path(sys.argv[1]).read_text(encoding="utf-8"),
    )
    REQUIREMENTS.write_text(fresh, encoding="utf-8")
    print(fresh, end="")
