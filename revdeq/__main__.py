"""Starts the command line with the packages of this distribution, whatever lies on the user's path.

The distribution lays `verify` and `reports` beside `revdeq`; a user's project may have folders of the same names, which
the path would put first. This launcher is the one place that reaches up to another floor, by name.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType


OWN = ("verify", "reports")


class OwnPackages(MetaPathFinder):
    """Finds the packages of this distribution where they lie."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where one of `OWN` is; None for every other module."""
        del path, target
        if fullname not in OWN:
            return None
        folder = Path(__file__).resolve().parents[1] / fullname
        return spec_from_file_location(fullname, folder / "__init__.py", submodule_search_locations=[str(folder)])


def main() -> None:
    """Run the command `revdeq`."""
    sys.meta_path.insert(0, OwnPackages())
    importlib.import_module("reports.command").main()


if __name__ == "__main__":
    main()
