"""What Triton's Python backend loads, for pipelines and components alike. The model itself is in `backends`."""

import logging
import os
import re
import site
import sys
from pathlib import Path

MODEL = Path(__file__).resolve().parents[1]


def find_package():
    """Makes Triptych importable; Triton's own module imports numpy right after this file.

    The stub ignores PYTHONPATH. Where its interpreter is not the environment that Triptych is installed in,
    the parameter `site_packages` of config.pbtxt, or else the variable TRIPTYCH_SITE_PACKAGES, names the folder.
    """
    config = (MODEL / "config.pbtxt").read_text(encoding="utf-8")
    written = re.search(r'key:\s*"site_packages"\s*value:?\s*{\s*string_value:\s*"([^"]*)"', config)
    named = (written and written.group(1)) or os.environ.get("TRIPTYCH_SITE_PACKAGES", "")
    if named:
        others = list(sys.path)
        site.addsitedir(named)  # and not only the path: an editable installation is a .pth file
        sys.path[:] = [path for path in sys.path if path not in others] + others
    return named


NAMED = find_package()
try:
    import numpy

    from backends._stub_model import make_model
except ModuleNotFoundError as exc:
    raise ModuleNotFoundError(
        f"Model {MODEL.name!r}: Python {sys.version_info.major}.{sys.version_info.minor} of {sys.prefix} has no"
        f" module {exc.name!r}" + (f", nor has {NAMED!r}" if NAMED else "") + "; install triptych[onnx] for"
        " this version of Python, and name its site-packages in the parameter `site_packages` of config.pbtxt."
    ) from exc
if int(numpy.__version__.split(".")[0]) > 1:
    raise ImportError(
        f"Model {MODEL.name!r}: numpy is {numpy.__version__}, with which this stub loses tensors;"
        " install 'numpy<2' there."
    )

import triton_python_backend_utils as triton  # noqa: E402

logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
logging.getLogger("router").setLevel(logging.INFO)


class TritonPythonModel:
    """The name that Triton looks for."""

    def initialize(self, args):
        self.model = make_model(args, triton)

    def execute(self, requests):
        return self.model.execute(requests)

    def finalize(self):
        self.model.finalize()
