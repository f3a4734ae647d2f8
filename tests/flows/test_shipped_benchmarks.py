"""Every shipped benchmark, and one of one's own shape, from its file to the tables."""

import json
from pathlib import Path

import pytest
import yaml

from flows.full_pipeline import main
from tests.storage.benchmarks import made


@pytest.mark.long
def test_each_benchmark_goes_through_inference_scoring_and_tables(tmp_path: Path) -> None:
    benchmarks = [
        made.mmar(tmp_path, "mmar-2025-05", suffix=".json"),
        made.mmar(tmp_path, "mmar-2026-02", suffix=".jsonl"),
        made.mmsu(tmp_path),
        made.adqa(tmp_path),
        made.air_bench(tmp_path),
    ]
    (tmp_path / "mmar-2025-05.errata.yaml").write_text("BV1_0_00-00-00_00-00-10: wrong gold")
    described = tmp_path / "mmar-2025-05.yaml"
    described.write_text(described.read_text() + "errata: mmar-2025-05.errata.yaml\n")
    profile = tmp_path / "shapes.yaml"
    settings = {
        "experiment": "shapes",
        "train": [],
        "evaluate": {
            "benchmarks": [entry.model_dump(mode="json") for entry in benchmarks],
            "models": [{"name": "tiny", "model": "random:tiny"}],
            "max_new_tokens": 4,
            "parity_questions": 2,
            "workers": 0,
        },
        "report": {"published": True},
    }
    profile.write_text(yaml.safe_dump(settings))
    workspace = tmp_path / "ws"
    options = ["--profile", str(profile), "--workspace", str(workspace)]
    main([*options, "--only", "evaluate,report"])
    rows = json.loads((workspace / "shapes/site/leaderboard.json").read_text())
    ours = {row["benchmark"]: row for row in rows if row["source"] == "this report"}
    counts = {name: row["num_questions"] for name, row in ours.items()}
    assert counts == {"mmar-2025-05": 7, "mmar-2026-02": 7, "mmsu": 6, "adqa-dev": 5, "mine": 3}
    further = {name: row.get("further", {}) for name, row in ours.items()}
    assert further["mmar-2025-05"]["shared with mmar-2026-02"]["num_questions"] == 6
    assert further["mmar-2025-05"]["without listed errata"]["num_questions"] == 6
    assert list(further["mmar-2026-02"]) == ["shared with mmar-2025-05"]
    assert further["mine"] == {}
    official = [row for row in rows if row["source"] == "MMAR board, ddlBoJack/MMAR a50cb43"]
    assert len(official) == 36
    assert not any("its categories give" in row["note"] for row in official)
    page = (workspace / "shapes/site/index.html").read_text()
    assert "MMAR, file of May 2025" in page
    assert "without listed errata" in page
