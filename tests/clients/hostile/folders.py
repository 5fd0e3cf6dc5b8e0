"""A hostile model: what stands in its folder, and what to ask it should it be served."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

VERSION = "1"


@dataclasses.dataclass(frozen=True)
class HostileModel:
    """One folder of a repository."""

    name: str
    # The version's `model.onnx`, or None if `arrange` makes what stands in its place.
    onnx: bytes | None
    config: bytes | None = None
    # Called with the model's folder, after the files above are written.
    arrange: Callable[[Path], None] | None = None
    # Bodies of inference requests that a served model must bear: answered with 200 or 4xx.
    asks: tuple[dict, ...] = ()

    def write(self, repository):
        folder = Path(repository) / self.name
        (folder / VERSION).mkdir(parents=True)
        if self.onnx is not None:
            (folder / VERSION / "model.onnx").write_bytes(self.onnx)
        if self.config is not None:
            (folder / "config.pbtxt").write_bytes(self.config)
        if self.arrange:
            self.arrange(folder)
        return folder


def ask(**inputs):
    """The body of an inference request out of (datatype, shape, flat data) by input."""
    return {
        "inputs": [
            {"name": name, "datatype": datatype, "shape": list(shape), "data": data}
            for name, (datatype, shape, data) in inputs.items()
        ]
    }
