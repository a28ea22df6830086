"""Put the records of runs into the wheel.

A plain `force-include` setting would also copy them into an editable install, where
they would grow old beside the originals in `results/`. An editable install reads the
originals, so only a real wheel gets the copies.
"""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class RecordsInWheel(BuildHookInterface):
    """Ship `results/*.json` as `annotated/results/*.json`."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add each record to the wheel, unless the install is editable."""
        if version == "editable" or self.target_name != "wheel":
            return
        for record in sorted((Path(self.root) / "results").glob("*.json")):
            build_data["force_include"][str(record)] = (
                f"annotated/results/{record.name}"
            )
