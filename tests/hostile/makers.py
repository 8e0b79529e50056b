"""Bad inputs that no text can hold: each function writes one at the place that it is given."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def set_values(content: Any, values: dict[str, Any]) -> None:
    """Puts values at dotted places; words such as $NAN stand for numbers that YAML and JSON files argue about."""
    for dotted, value in values.items():
        *path, last = dotted.split(".")
        branch = content
        for key in path:
            branch = branch[int(key)] if isinstance(branch, list) else branch.setdefault(key, {})
        if value == "$REMOVE":
            del branch[last]
        else:
            branch[last] = _meant(value)


def _meant(value: Any) -> Any:
    if isinstance(value, list):
        return [_meant(item) for item in value]
    if isinstance(value, dict):
        return {key: _meant(item) for key, item in value.items()}
    return (
        {"$NAN": float("nan"), "$INF": float("inf"), "$HUGE": 10**400}.get(value, value)
        if isinstance(value, str)
        else value
    )


def seal_again(folder: Path) -> None:
    """What an attacker does who knows how bundles are sealed: manifest and calibrator fit whatever stands there."""
    from clsgen_dist.integrity import sha256_of
    from clsgen_dist.sealed import CALIBRATOR, MANIFEST, model_hash

    manifest = json.loads((folder / MANIFEST).read_text())
    present = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    manifest["files"] = {path.relative_to(folder).as_posix(): sha256_of(path) for path in present}
    with contextlib.suppress(AttributeError, ValueError, RecursionError):  # a calibrator that is none
        content = json.loads((folder / CALIBRATOR).read_text())
        if content.get("model_sha256") not in (None, "other"):
            content["model_sha256"] = model_hash(manifest)
            (folder / CALIBRATOR).write_text(json.dumps(content))
            manifest["files"][CALIBRATOR] = sha256_of(folder / CALIBRATOR)
    (folder / MANIFEST).write_text(json.dumps(manifest))


# Any file


def nothing(path: Path) -> None:
    """No file at all."""


def folder(path: Path) -> None:
    path.mkdir()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def loop(path: Path) -> None:
    """A link to itself."""
    path.symlink_to(path.name)


def pipe(path: Path) -> None:
    """A named pipe that nobody writes to."""
    os.mkfifo(path)


def zeros(path: Path) -> None:
    """A device without an end."""
    path.symlink_to("/dev/zero")


# Configurations

_GOOD = "run: {name: x}\ntask: {question: Q, labels: [a, b]}\ndata: {vignettes: {}}\nmodel: {from_scratch: {}}\n"


def nested_config(path: Path) -> None:
    path.write_text(_GOOD + "train: " + "[" * 5000 + "]" * 5000)


def block_nested_config(path: Path) -> None:
    path.write_text(_GOOD + "".join(" " * depth + "a:\n" for depth in range(2000)))


def bomb(where: str, levels: int = 30) -> str:
    """Two to the power of `levels` words, in a few hundred letters."""
    lines = [f"  {where}:", "    a0: &a0 [lol, lol]"]
    lines += [f"    a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, levels)]
    return "\n".join(lines)


def bomb_of_lists(path: Path) -> None:
    path.write_text(_GOOD + "explain:\n" + bomb("extra_body"))


def bomb_of_unknown_keys(path: Path) -> None:
    path.write_text(_GOOD + "train:\n" + bomb("no_such_key"))


def bomb_in_a_wrong_place(path: Path) -> None:
    path.write_text(_GOOD + "train:\n" + bomb("epochs"))


def endless_anchor(path: Path) -> None:
    path.write_text(_GOOD + "explain:\n  extra_body: &a\n    again: *a\n")


def many_settings(path: Path) -> None:
    path.write_text(_GOOD + "".join(f"no_such_section_{n}: 1\n" for n in range(2000)))


def long_number(path: Path) -> None:
    path.write_text(_GOOD.replace("name: x", "name: x, seed: " + "9" * 5000))


def long_name(path: Path) -> None:
    path.write_text(_GOOD.replace("name: x", "name: " + "x" * 5000))


def config_without_end(path: Path) -> None:
    path.write_text("# " + "x" * 20_000_000)


# Rows


def _parquet(path: Path, **columns: Any) -> None:
    pq.write_table(pa.table(columns), path)


def parquet_nested_text(path: Path) -> None:
    _parquet(path, text=[{"said": "a"}, {"said": "b"}], label=[0, 1])


def parquet_list_text(path: Path) -> None:
    _parquet(path, text=[["a"], ["b"]], label=[0, 1])


def parquet_bytes_text(path: Path) -> None:
    _parquet(path, text=pa.array([b"\xff\xfe", b"b"], pa.binary()), label=[0, 1])


def parquet_not_utf8(path: Path) -> None:
    broken = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")])
    pq.write_table(pa.table({"text": broken, "label": [0]}), path)


def parquet_truncated(path: Path) -> None:
    _parquet(path, text=["a"] * 1000, label=[0] * 1000)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def parquet_flipped(path: Path) -> None:
    """The pages are garbage, the end is good."""
    _parquet(path, text=[f"words {n}" for n in range(1000)], label=[0] * 1000)
    whole = bytearray(path.read_bytes())
    whole[4:200] = b"\xff" * 196
    path.write_bytes(bytes(whole))


def parquet_footer(path: Path) -> None:
    """A footer that says it is larger than the file."""
    _parquet(path, text=["a"], label=[0])
    whole = path.read_bytes()
    path.write_bytes(whole[:-8] + b"\xff\xff\xff\x7fPAR1")


def parquet_magic_only(path: Path) -> None:
    path.write_bytes(b"PAR1PAR1")


def parquet_no_rows(path: Path) -> None:
    _parquet(path, text=pa.array([], pa.string()), label=pa.array([], pa.int64()))


def parquet_far_date(path: Path) -> None:
    _parquet(path, text=["a"], label=[0], seen=pa.array([2**30], pa.date32()))


def parquet_unknown_zone(path: Path) -> None:
    _parquet(path, text=["a"], label=[0], seen=pa.array([1], pa.timestamp("us", tz="Mars/Olympus")))


def parquet_same_columns(path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"]), pa.array([0])], ["text", "text", "label"])
    pq.write_table(table, path)


def parquet_unknown_label(path: Path) -> None:
    _parquet(path, text=["a", "b"], label=["no", "maybe"])


def parquet_nan_label(path: Path) -> None:
    _parquet(path, text=["a"], label=[float("nan")])


def jsonl_in_disguise(path: Path) -> None:
    path.write_text('{"text": "a", "label": 0}\n')


def zip_in_disguise(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04" + bytes(60))


def gzipped(path: Path) -> None:
    path.write_bytes(gzip.compress(b'{"text": "a", "label": 0}\n'))


def long_text(path: Path) -> None:
    path.write_text(json.dumps({"text": "a" * 5_000_001, "label": 0}))


def long_line(path: Path) -> None:
    """A file without a line end, as a dump of a database can be."""
    path.write_bytes(b"a" * 60_000_000)


def long_cell(path: Path) -> None:
    path.write_text("text,label\n" + "a" * 5_000_001 + ",0\n")


def deep_row(path: Path) -> None:
    path.write_text('{"text": ' + "[" * 100_000 + "]" * 100_000 + "}")


def deep_document(path: Path) -> None:
    path.write_text('[{"text": ' + "[" * 100_000 + "]" * 100_000 + "}]")


def long_integer(path: Path) -> None:
    path.write_text('{"text": "a", "label": ' + "1" * 5000 + "}")


def long_integer_in_document(path: Path) -> None:
    path.write_text('[{"text": "a", "label": ' + "1" * 5000 + "}]")


def unclosed_quote(path: Path) -> None:
    path.write_text('text,label\n"a,0\n' + "b,1\n" * 1000)


# Answers of an endpoint, with their heads


def _http(path: Path, body: bytes, *lines: str) -> None:
    head = ["HTTP/1.1 200 OK", "content-type: application/json", f"content-length: {len(body)}", *lines]
    path.write_bytes("\r\n".join([*head, "", ""]).encode() + body)


def http_long_integer(path: Path) -> None:
    _http(path, b'{"choices": ' + b"1" * 5000 + b"}")


def http_nested(path: Path) -> None:
    _http(path, b"[" * 200_000)


def http_oversized(path: Path) -> None:
    _http(path, b'{"choices": [{"message": {"content": "' + b"a" * 40_000_000 + b'"}}]}')


def http_without_end(path: Path) -> None:
    """No length, and more than anyone can want."""
    path.write_bytes(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + b" " * 40_000_000)


def http_gzip_bomb(path: Path) -> None:
    _http(path, gzip.compress(b" " * 200_000_000, compresslevel=1), "content-encoding: gzip")


def http_none(path: Path) -> None:
    path.write_bytes(b"SSH-2.0-OpenSSH_9.2\r\n")


def http_long_headers(path: Path) -> None:
    path.write_bytes(b"HTTP/1.1 200 OK\r\nx-long: " + b"a" * 5_000_000)


# Bundles: the place is the bundle's folder


class _Evil:
    """A pickle that leaves a mark where it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.mark),))


def _pickled(folder: Path) -> bytes:
    return pickle.dumps(_Evil(folder.parent / "taken"))


def remove_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def remove_all(folder: Path) -> None:
    shutil.rmtree(folder)


def file_for_folder(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("hello")


def remove_head(folder: Path) -> None:
    (folder / "head.safetensors").unlink()


def flip_head(folder: Path) -> None:
    path = folder / "head.safetensors"
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.write_bytes(bytes(whole))


def truncate_adapter(folder: Path) -> None:
    path = folder / "adapter" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def pickle_for_head(folder: Path) -> None:
    (folder / "head.safetensors").write_bytes(_pickled(folder))


def torch_file_for_head(folder: Path) -> None:
    import torch

    torch.save({"weight": torch.zeros(2, 2)}, folder / "head.safetensors")


def pickle_for_adapter(folder: Path) -> None:
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(_pickled(folder))


def pickle_for_model(folder: Path) -> None:
    (folder / "model" / "model.safetensors").write_bytes(_pickled(folder))


def link_head(folder: Path) -> None:
    (folder / "head.safetensors").rename(folder.parent / "elsewhere")
    (folder / "head.safetensors").symlink_to(folder.parent / "elsewhere")


def link_folder(folder: Path) -> None:
    (folder / "tokenizer").rename(folder.parent / "elsewhere")
    (folder / "tokenizer").symlink_to(folder.parent / "elsewhere")


def link_nowhere(folder: Path) -> None:
    (folder / "more.json").symlink_to("nowhere")


def pipe_for_head(folder: Path) -> None:
    (folder / "head.safetensors").unlink()
    os.mkfifo(folder / "head.safetensors")


def nested_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"format": ' + "[" * 100_000 + "]" * 100_000 + "}")


def huge_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_bytes(b'{"format": "' + b"a" * 70_000_000 + b'"}')


def offsets_outside(folder: Path) -> None:
    head = b'{"weight": {"dtype": "F32", "shape": [2, 32], "data_offsets": [0, 99999999999]}}'
    (folder / "head.safetensors").write_bytes(len(head).to_bytes(8, "little") + head)


def _save(path: Path, **tensors: Any) -> None:
    from safetensors.torch import save_file

    save_file(tensors, path)


def head_of_other_width(folder: Path) -> None:
    import torch

    _save(folder / "head.safetensors", weight=torch.ones(2, 33), bias=torch.ones(2))


def head_of_other_names(folder: Path) -> None:
    import torch

    _save(folder / "head.safetensors", w=torch.ones(2, 32), b=torch.ones(2))


def head_of_nan(folder: Path) -> None:
    import torch

    _save(folder / "head.safetensors", weight=torch.full((2, 32), float("nan")), bias=torch.ones(2))


def _changed_adapter(folder: Path, change: Any) -> None:
    from safetensors.torch import load_file

    path = folder / "adapter" / "adapter_model.safetensors"
    _save(path, **{name: change(weight).contiguous() for name, weight in load_file(path).items()})


def adapter_of_other_width(folder: Path) -> None:
    _changed_adapter(folder, lambda weight: weight[:, :-1])


def adapter_of_nan(folder: Path) -> None:
    _changed_adapter(folder, lambda weight: weight * float("nan"))


def adapter_of_integers(folder: Path) -> None:
    _changed_adapter(folder, lambda weight: weight.long())


def remove_tokenizer(folder: Path) -> None:
    shutil.rmtree(folder / "tokenizer")


def remove_model_config(folder: Path) -> None:
    (folder / "model" / "config.json").unlink()


def remove_model_weights(folder: Path) -> None:
    (folder / "model" / "model.safetensors").unlink()


def index_that_slips(folder: Path) -> None:
    """Weights in parts, one of which is said to lie elsewhere."""
    (folder / "model" / "model.safetensors").rename(folder / "model" / "part.safetensors")
    index = {"metadata": {"total_size": 1}, "weight_map": {"model.norm.weight": "../../elsewhere.safetensors"}}
    (folder / "model" / "model.safetensors.index.json").write_text(json.dumps(index))


# What a run folder holds


def nested_explained_manifest(place: Path) -> None:
    _nested(place / "explained" / "manifest.json")


def unknown_key_in_config(place: Path) -> None:
    with (place / "config.yaml").open("a") as file:
        file.write("surprise: 1\n")


def other_seed_in_config(place: Path) -> None:
    text = (place / "config.yaml").read_text()
    (place / "config.yaml").write_text(text.replace("seed: 1", "seed: 2", 1))


def nothing_in_folder(place: Path) -> None:
    """Nothing that was not there."""


def folder_for_journal(place: Path) -> None:
    (place.parent / "tracking" / "journal.jsonl").mkdir()


def nested_tracking(place: Path) -> None:
    _nested(place.parent / "tracking.json")


def nested_journal(place: Path) -> None:
    _nested(place.parent / "tracking" / "journal.jsonl")


def _nested(path: Path) -> None:
    path.write_text("[" * 200_000 + "]" * 200_000 + "\n")


def remove_labelled_rows(folder: Path) -> None:
    (folder / "rows" / "calibration.parquet").unlink()


def remove_rows_manifest(folder: Path) -> None:
    (folder / "rows" / "manifest.json").unlink()


def remove_explained_rows(folder: Path) -> None:
    (folder / "explained" / "validation.parquet").unlink()


def remove_zero(folder: Path) -> None:
    (folder / "ds_config.json").unlink()


def remove_tokens(folder: Path) -> None:
    (folder / "tokens" / "train.arrow").unlink()


def flip_tokens(folder: Path) -> None:
    path = folder / "tokens" / "calibration.arrow"
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(bytes(whole))
