"""Put the records of runs and the trained model into the wheel.

A plain `force-include` setting would also copy them into an editable install, where
they would grow old beside the originals in `results/` and `models/`. An editable
install reads the originals, so only a real wheel gets the copies.
"""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class DataInWheel(BuildHookInterface):
    """Ship `results/*.json` and all of `models/` below `annotated/`."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add each file to the wheel, unless the install is editable."""
        if version == "editable" or self.target_name != "wheel":
            return
        root = Path(self.root)
        for path in sorted([*root.glob("results/*.json"), *root.glob("models/*/*")]):
            place = "annotated" / path.relative_to(root)
            build_data["force_include"][str(path)] = place.as_posix()
