"""What wandb wrote for `wandb sync`: blocks as LevelDB logs have them, of wandb's own protobuf records."""

import json
import struct
from pathlib import Path

BLOCK, HEAD = 32_768, 7
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def read_records(file: Path) -> list:
    """Every record of a .wandb file, in order."""
    from wandb.proto.wandb_internal_pb2 import Record

    data = file.read_bytes()
    assert data[:4] == b":W&B"
    at, parts, records = HEAD, b"", []
    while at + HEAD <= len(data):
        if BLOCK - at % BLOCK < HEAD:  # too little room for a head: the rest of the block is empty
            at += BLOCK - at % BLOCK
            continue
        size, kind = struct.unpack_from("<HB", data, at + 4)
        assert kind in (WHOLE, FIRST, MIDDLE, LAST)
        parts += data[at + HEAD : at + HEAD + size]
        at += HEAD + size
        if kind in (WHOLE, LAST):
            records.append(Record.FromString(parts))
            parts = b""
    assert not parts, "cut short"
    return records


def read_job(folder: Path) -> dict:
    """An offline run: its record `run`, config, every row of its history, its media and the files of its artifacts."""
    [file] = folder.glob("*.wandb")
    kinds: dict = {}
    for record in read_records(file):
        kind = record.WhichOneof("record_type")
        kinds.setdefault(kind, []).append(getattr(record, kind))
    [run] = kinds["run"]
    contents = [
        entry for artifact in kinds.get("artifact", []) for entry in artifact.manifest.contents
    ]
    artifacts = {entry.path: Path(entry.local_path) for entry in contents}
    history = [items(row.item) for row in kinds["history"]]
    return {
        "run": run,
        "config": items(run.config.update),
        "history": history,
        "files": folder / "files",
        "artifacts": artifacts,
    }


def items(nested_items) -> dict:
    """{key: value}; a value of several items, like an image, is a dict again."""
    values: dict = {}
    for item in nested_items:
        *above, last = item.nested_key or [item.key]
        place = values
        for key in above:
            place = place.setdefault(key, {})
        place[last] = json.loads(item.value_json)
    return values
