"""The examples as a data set with its audio inside: a folder that `datasets.load_dataset` reads."""

import importlib
from pathlib import Path
from typing import Any

from storage.errors import PipelineError
from storage.jsonl import read_jsonl

ROWS_A_FILE = 1000  # of 10 s clips: 320 MB


def write_dataset(splits: dict[str, Path], folder: Path) -> int:
    """Write parquet files, the audio as it lies on the disk.

    Args:
        splits: File of lines of each split, e.g. `train`.
        folder: New, or empty.

    Returns:
        Number of rows.

    Raises:
        PipelineError: If the folder holds something, or there are no lines.
    """
    datasets: Any = importlib.import_module("datasets")  # 1.5 s, needed only here

    if folder.is_dir() and any(folder.iterdir()):
        msg = f"{folder} is not empty: name a new folder"
        raise PipelineError(msg)
    datasets.disable_progress_bars()
    num_rows = 0
    for split, path in splits.items():
        rows = read_jsonl(path)
        num_rows += len(rows)
        parts = [rows[begin : begin + ROWS_A_FILE] for begin in range(0, len(rows), ROWS_A_FILE)]
        for number, part in enumerate(parts):
            file = folder / "data" / f"{split}-{number:05d}-of-{len(parts):05d}.parquet"
            file.parent.mkdir(parents=True, exist_ok=True)
            made = datasets.Dataset.from_list([_with_audio(row) for row in part])
            made.cast_column("audio", datasets.Audio(decode=False)).to_parquet(str(file))
    return num_rows


def _with_audio(row: dict[str, Any]) -> dict[str, Any]:
    clip = Path(row["audio_path"])
    audio = {"bytes": clip.read_bytes(), "path": clip.name}
    # Ids are numbers in AVQA and texts elsewhere, and a column has one type.
    return {**row, "id": str(row["id"]), "video_id": str(row["video_id"]), "audio": audio}
