"""Record the golden results: ``python tests/golden/record.py``. Only where results are meant to change."""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path

from golden_results import (
    DETECTIONS,
    FILES,
    GOLDEN,
    detect_into_folder,
    kernel_outputs,
    machine,
    other_outputs,
    summary,
    weights_of,
)

from t3ssfast.models import load_model


def main() -> None:
    for name in DETECTIONS:
        target = GOLDEN / name
        target.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory() as temporary:
            detect_into_folder(name, Path(temporary))
            for file in FILES:
                content = (Path(temporary) / file).read_bytes()
                if file == "membrane.mrc":
                    (target / f"{file}.gz").write_bytes(gzip.compress(content, mtime=0))
                else:
                    (target / file).write_bytes(content)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        outputs = {name: summary(array) for name, array in kernel_outputs()}
        outputs |= {name: summary(array) for name, array in other_outputs(folder, load_model)}
    # These files stay as an earlier version wrote them.
    models = {path.stem: weights_of(path) for path in sorted((GOLDEN / "models").glob("*.pt"))}
    document = {"machine": machine(), "outputs": outputs, "models": models}
    (GOLDEN / "outputs.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
