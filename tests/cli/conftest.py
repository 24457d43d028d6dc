"""Commands that must fail as a user's error."""

import sys

import pytest

from dcae_bench.cli.main import main


@pytest.fixture
def refused(monkeypatch, capsys):
    """Run a command that must fail as a user's error; returns its one line without the prefix.

    ``worked``: the command may have told of its progress before.
    """

    def run(*arguments, worked: bool = False) -> str:
        monkeypatch.setattr(sys, "argv", ["dcae-bench", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert ended.value.code == 2 and not out
        *before, line = err.splitlines()
        assert worked or not before, err
        assert line.startswith("dcae-bench: error: ") and err.endswith("\n"), err
        assert "Traceback" not in err and err.count("dcae-bench: error") == 1
        return line.removeprefix("dcae-bench: error: ")

    return run
