"""What of an error may be published."""

from __future__ import annotations

import pytest

from benchmarks.wording import public


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("no such file: '/home/me/.venv/lib/x.py'", "no such file: '<path>'"),
        ('File "/usr/lib/python3/a.py", line 3', 'File "<path>", line 3'),
        ("~/work/x is missing", "<path> is missing"),
        ("see ../private/x.log", "see <path>"),
        ("at https://user:secret@index.example/simple/pip failed", "at <url> failed"),
        ("postgresql://postgres@/bench?host=/tmp/x: refused", "<url> refused"),
        ("first line\n/second/line", "first line"),
        ("30,000 jobs/s, A/A and 1/2 of the jobs", "30,000 jobs/s, A/A and 1/2 of the jobs"),
        ("run `apt-get install redis-server`", "run `apt-get install redis-server`"),
    ],
)
def test_words_stay_and_places_go(said: str, told: str):
    assert public(said) == told
