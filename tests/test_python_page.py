"""docs/python.md, block by block, against what comes out. Decimals depend on the processor and are not compared."""

import doctest
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "python.md"


class WithoutDecimals(doctest.OutputChecker):
    """Compares words and whole numbers."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        plain = [re.sub(r"\d+\.\d+(e-?\d+)?", "#", text) for text in (want, got)]
        return super().check_output(*plain, optionflags)


def test_the_page_on_python_says_what_comes_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8").replace("```", "")
    page = doctest.DocTestParser().get_doctest(text, {}, PAGE.name, str(PAGE), 0)
    assert len(page.examples) > 30
    said: list[str] = []
    doctest.DocTestRunner(WithoutDecimals()).run(page, out=said.append)
    assert not said, "".join(said)
