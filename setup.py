"""What pyproject.toml cannot say: the wheel holds the recipes, and the README's links lead to the repository, so that they work on the package index."""

import re
import shutil
import tomllib
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


class BuildWithRecipes(build_py):
    """Copies recipes/ into the package."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            shutil.copytree(ROOT / "recipes", Path(self.build_lib) / "maskweave" / "recipes", dirs_exist_ok=True)


def readme() -> str:
    """Returns README.md with absolute links, to the files of this version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    repository, tag = project["urls"]["Repository"], f"v{project['version']}"
    raw = repository.replace("github.com", "raw.githubusercontent.com")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"(!\[[^\]]*\]\()(?!https?:|#)", rf"\1{raw}/{tag}/", text)
    return re.sub(r"((?<!!)\[[^\]]*\]\()(?!https?:|#)", rf"\1{repository}/blob/{tag}/", text)


setup(cmdclass={"build_py": BuildWithRecipes}, long_description=readme(), long_description_content_type="text/markdown")
