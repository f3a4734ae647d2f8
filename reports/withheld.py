"""Benchmarks whose answers are withheld: there is no score to show, but a file to submit."""

from typing import Any

from reports.numbers.leaderboard import tests_of

Json = dict[str, Any]


def withheld(report: Json) -> list[Json]:
    """What was predicted for such benchmarks, a row a model and prompt; controls are left out.

    Returns:
        `{"benchmark", "model", "prompt", "num_questions", "num_parsed", "file"}`; the file is told
        from the experiment's folder.
    """
    return [
        {
            "benchmark": benchmark["name"],
            "model": evaluation["model"],
            "prompt": evaluation["prompt"] or "",
            "num_questions": len(benchmark["questions"]),
            "num_parsed": evaluation["parsed"].count("1"),
            "file": f"evaluation/{evaluation['model']}/{benchmark['name']}/{evaluation['folder']}"
            "/submission.json",
        }
        for benchmark in tests_of(report)
        if is_withheld(benchmark)
        for evaluation in report["evaluations"]
        if evaluation["benchmark"] == benchmark["name"] and evaluation["control"] is None
    ]


def is_withheld(benchmark: Json) -> bool:
    """Whether a benchmark gives no answers."""
    return all(not question["answer"] for question in benchmark["questions"])
