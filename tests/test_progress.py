"""Is progress shown to people, and to nobody else?"""

import pytest

from vmsim.progress import progress_bar


def test_in_a_pipe_there_is_none(capfd: pytest.CaptureFixture[str]) -> None:
    with progress_bar("simulating") as show:
        assert show is None
    assert capfd.readouterr() == ("", "")


def test_on_a_terminal_all_vms_count_together(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress_bar("simulating") as show:
        assert show is not None
        show("a", 1_000, 10_000)
        show("b", 500, 20_000)
        show("a", 4_000, 10_000)
    said = capfd.readouterr()
    assert said.out == ""
    assert "4,500 accesses" in said.err
