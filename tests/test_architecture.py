"""Traps of the house that no linter knows."""

import ast
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("flows", "tasks", "storage", "model", "reports")


def test_no_flow_file_is_named_like_a_package_or_a_standard_module() -> None:
    """Prefect puts flows/ first on sys.path, so such a file would hide the module of its name."""
    taken = {*PACKAGES, *sys.stdlib_module_names}
    names = [path.stem for path in (ROOT / "flows").glob("*.py") if path.stem != "__init__"]
    assert not [name for name in names if name in taken or _is_installed(name)]


def test_flow_files_with_flows_in_them_define_no_settings_classes() -> None:
    """Prefect loads a flow file again, by path: its classes would exist twice."""
    for path in (ROOT / "flows").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        has_flow = any(
            isinstance(node, ast.FunctionDef)
            and (
                node.name.endswith("_flow")
                or any("flow(" in ast.unparse(decorator) for decorator in node.decorator_list)
            )
            for node in tree.body
        )
        classes = [
            node.name
            for node in tree.body
            if isinstance(node, ast.ClassDef)
            and any(ast.unparse(base) in {"Config", "BaseModel"} for base in node.bases)
        ]
        assert not (has_flow and classes), f"{path.name}: {classes}"


def _is_installed(name: str) -> bool:
    return find_spec(name) is not None
