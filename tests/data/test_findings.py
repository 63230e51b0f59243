"""What numbers say about training on records: severity, numbers and remedy."""

from __future__ import annotations

import pytest

from bert_pretrain.data import findings
from bert_pretrain.data.findings import RecordStatistics, Severity

FAULT, WARNING, NOTE = Severity
SOUND = RecordStatistics(1000, 128_000, 100_000, 15_000, 0, 0, 500, 12_000, 1500, 100)


def severities(**changes: object) -> list[Severity]:
    return [finding.severity for finding in findings.judge_records(SOUND._replace(**changes))]


def test_sound_records_have_no_findings() -> None:
    assert severities() == []
    assert severities(mask_tokens=None, kept_tokens=None, unknown=None) == []


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"records": 0}, [FAULT]),
        ({"tokens": 3000}, [FAULT]),
        ({"without_prediction": 1000, "predictions": 0, "mask_tokens": 0, "kept_tokens": 0}, [FAULT]),
        ({"without_prediction": 20}, [WARNING]),
        ({"without_prediction": 10}, [NOTE]),
        ({"with_one_segment": 1000}, [FAULT]),
        ({"with_one_segment": 1000, "random_next": 0}, [NOTE]),  # single sequences
        ({"with_one_segment": 1000, "random_next": 1000}, [NOTE]),
        ({"random_next": 1000}, [WARNING]),
        ({"random_next": 440}, [NOTE]),
        ({"unknown": 60_000}, [FAULT]),
        ({"unknown": 2000}, [WARNING]),
        ({"slots": 512_000}, [WARNING]),
        ({"with_one_segment": 1, "random_next": 0, "unknown": 60_000}, [FAULT, WARNING, NOTE]),  # the worst first
    ],
)
def test_severities(changes: dict, expected: list[Severity]) -> None:
    assert severities(**changes) == expected


def test_each_finding_is_one_line_with_a_remedy() -> None:
    worst = SOUND._replace(
        without_prediction=500, with_one_segment=1000, random_next=1000, unknown=60_000, slots=1 << 20
    )
    found = [
        *findings.judge_records(worst),
        *findings.judge_documents(1, 2),
        *findings.judge_duplicates(3, 10, "there"),
        *findings.judge_vocabulary(10, 5, 0, 4, 20, "vocab.txt"),
    ]
    assert len(found) == 8
    for finding in found:
        assert finding.remedy and "\n" not in str(finding) and str(finding).startswith(f"{finding.severity.value}: ")


def test_single_sequences_are_no_fault_of_a_run_without_the_next_sentence_task() -> None:
    single = SOUND._replace(with_one_segment=1000, random_next=0)
    (warning,) = findings.judge_records(single, next_sentence_weight=1.0)
    assert warning.severity is WARNING and "--next_sentence_weight=0" in warning.remedy
    assert findings.judge_records(single, next_sentence_weight=0.0) == []
    only_special = single._replace(tokens=2000)
    assert [finding.severity for finding in findings.judge_records(only_special)] == [FAULT]
    assert [finding.severity for finding in findings.judge_records(only_special._replace(tokens=3000))] != [FAULT]


def test_few_records_are_not_judged_by_chance() -> None:
    for random_next in range(10):
        few = RecordStatistics(9, 9 * 128, 900, 135, 0, 0, random_next)
        assert not [finding for finding in findings.judge_records(few) if finding.severity is not NOTE]


@pytest.mark.parametrize(
    "num_entries, vocab_size, num_framed, max_id, expected",
    [
        (100, 100, 50, 99, []),
        (100, 104, 50, 99, []),
        (100, 100, 50, 100, [FAULT]),
        (100, 100, 0, 99, [FAULT]),
        (100, 100, 49, 99, [WARNING]),
        (100, 99, 50, 98, [WARNING]),
        (100, 200, 50, 98, [NOTE]),
    ],
)
def test_vocabulary_and_data_apart(
    num_entries: int, vocab_size: int, num_framed: int, max_id: int, expected: list[Severity]
) -> None:
    found = findings.judge_vocabulary(num_entries, vocab_size, num_framed, 50, max_id, "vocab.txt")
    assert [finding.severity for finding in found] == expected


def test_what_is_not_known_of_a_part_is_not_known_of_the_sum() -> None:
    total = RecordStatistics.sum_of([SOUND, SOUND._replace(unknown=None)])
    assert (total.records, total.predictions, total.unknown) == (2000, 30_000, None)
    assert RecordStatistics.sum_of([]) == RecordStatistics()


def test_faults_are_shown_even_where_a_later_program_tells_the_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    found = findings.judge_records(SOUND._replace(random_next=0, unknown=60_000))
    assert findings.shown_findings(found) == found
    monkeypatch.setenv(findings.TOLD_ELSEWHERE, "1")
    assert [finding.severity for finding in findings.shown_findings(found)] == [FAULT]
