"""The command line: subcommands of each package, errors that end with a code."""

from __future__ import annotations

import pytest

from safety_filter import __version__, cli


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0 and __version__ in capsys.readouterr().out


def test_help_lists_the_subcommands_of_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    text = capsys.readouterr().out
    for name in ("demo", "fit-robot", "explain", "parameters"):
        assert name in text


def test_an_unknown_subcommand_lists_the_valid_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["dance"])
    assert end.value.code == 2 and "explain" in capsys.readouterr().err


def test_a_package_without_its_extra_hides_its_subcommands_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = cli.importlib.import_module

    def missing(name: str) -> object:
        if name == "safety_filter.demo.commands":
            raise ModuleNotFoundError("No module named 'cv2'", name="cv2")
        return real(name)

    monkeypatch.setattr(cli.importlib, "import_module", missing)
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    captured = capsys.readouterr()
    assert "cv2 is not installed" in captured.err and "explain" in captured.out


def test_parameters_are_printed_as_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["parameters", "monitor_node"]) == 0
    text = capsys.readouterr().out
    assert "| `silence` | 0.04 | s |" in text


def test_ctrl_c_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    import safety_filter.nodes.commands as commands

    def interrupt(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "run", interrupt)
    assert cli.main(["parameters"]) == 130
