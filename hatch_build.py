"""Put kernels that were compiled ahead into the wheel, if IREVRNN_PREBUILT names their folder.

``make wheel`` does. Without the variable, and in an editable installation, nothing is added.
"""

import os
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class PrebuiltKernels(BuildHookInterface):
    """Add the folder, and say in the wheel's name which platform it is for."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        named = os.environ.get("IREVRNN_PREBUILT")
        if not named or version == "editable":
            return
        folder = Path(self.root, named)
        if not list(folder.glob("*/irevrnn_ops.so")):
            raise FileNotFoundError(
                f"IREVRNN_PREBUILT names {folder}, which holds no kernels: fill it by "
                "'python -m irevrnn.kernels --prebuild FOLDER', or unset the variable"
            )
        build_data["force_include"][str(folder)] = "irevrnn/prebuilt"
        build_data["pure_python"] = False
        # The libraries use PyTorch's C++ interface alone: any Python will do.
        platform = self.build_config.builder.get_best_matching_tag().rpartition("-")[2]
        build_data["tag"] = f"py3-none-{platform}"
