"""--rank_invariant: the same bits on any number of ranks, and across a change of that number within a run."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
import pytest

from tests.e2e import ranks, runs

has_ranks = pytest.mark.skipif(
    not Path(ranks.MPIRUN).exists(), reason="needs Horovod and mpi4py: bash init_tf.sh --horovod"
)
UPDATES = 40
LAST = f"model.ckpt-{UPDATES}"


def settings(data: dict, output_dir: Path, num_ranks: int, **changes: object) -> dict[str, object]:
    """40 updates of 24 examples in 8 micro-batches; data have a model with dropout."""
    return {
        **data, **runs.settings(num_train_steps=UPDATES, num_accumulation_steps=8 // num_ranks), "lr_scaling": "none",
        "output_dir": str(output_dir), "save_checkpoints_steps": 20, "rank_invariant": True, **changes,
    }  # fmt: skip


def differing(one: Path, other: Path) -> list[str]:
    """Variables and slots of two checkpoints that are not the same bits."""
    a, b = runs.tensors(one), runs.tensors(other)
    assert a.keys() == b.keys()
    return [name for name in a if a[name].tobytes() != b[name].tobytes()]


@pytest.mark.slow
@pytest.mark.horovod
@has_ranks
@pytest.mark.parametrize(("optimizer", "native"), [("lamb", True), ("adam", False)])
def test_the_number_of_ranks_does_not_change_a_bit(optimizer: str, native: bool, data: dict, tmp_path: Path) -> None:
    """Two ranks are killed after update 30, and four go on from update 20; one rank of two threads does not stop."""
    changes = {"optimizer_type": optimizer, "native_kernels": native, "learning_rate": 1e-3}
    runs.train(**settings(data, tmp_path / "one", 1, intra_op_threads=2, **changes))
    killed = ranks.dying_trainer(
        runs.flags(**settings(data, tmp_path / "many", 2, **changes)),
        "if RANK == 0:\n" + textwrap.indent(runs.signal_after(30).strip(), "    "),
    )
    assert ranks.run([*ranks.mpirun(2), *killed], tmp_path / "first").code != 0
    assert not (tmp_path / "many" / f"{LAST}.index").exists()
    rest = ranks.trainer(runs.flags(**settings(data, tmp_path / "many", 4, **changes)))
    ended = ranks.run([*ranks.mpirun(4), *rest], tmp_path / "second")
    assert ended.code == 0, ended.err[-3000:]
    assert "the same examples follow, and --rank_invariant gives the same bits" in ended.out
    assert differing(tmp_path / "one" / LAST, tmp_path / "many" / LAST) == []


def test_the_update_is_that_of_the_plain_mode(data: dict, tmp_path: Path) -> None:
    """Without dropout both modes compute the same sums, so one AdamW update agrees to rounding."""
    model = runs.write_model(tmp_path / "bert_config.json", runs.MODEL)
    changes = {"bert_config_file": model, "num_train_steps": 1, "num_warmup_steps": 0, "start_warmup_step": -1}
    for name, invariant in (("plain", False), ("invariant", True)):
        runs.train(**settings(data, tmp_path / name, 1, **{**changes, "rank_invariant": invariant}))
    plain, invariant = (runs.tensors(tmp_path / name / "model.ckpt-1") for name in ("plain", "invariant"))
    for name in plain:
        if name.endswith("/LAMB") and "/key/bias" not in name:  # m, a tenth of the clipped gradient
            difference = np.linalg.norm((plain[name] - invariant[name]).ravel())
            assert difference <= 1e-6 * np.linalg.norm(plain[name].ravel()), name


def test_another_number_of_micro_batches_is_refused(data: dict, tmp_path: Path) -> None:
    first = settings(data, tmp_path, 1, num_train_steps=2)
    runs.train(**first)
    with pytest.raises(ValueError, match=r" 8, this one has 4: .*--invariant_micro_batches=8"):
        runs.train(**{**first, "num_train_steps": 3, "num_accumulation_steps": 4})
    runs.train(**{**first, "num_train_steps": 3, "num_accumulation_steps": 4, "train_batch_size": 6,
                  "invariant_micro_batches": 8})  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"lr_scaling": "linear"}, "--rank_invariant needs --lr_scaling=none"),
        ({"allreduce_fp16": True}, "--rank_invariant .*--allreduce_fp16"),
        ({"invariant_micro_batches": 7}, "1 ranks .* 24 examples"),
    ],
)
def test_what_contradicts_it_is_refused(changes: dict, told: str, data: dict, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=told):
        runs.train(**settings(data, tmp_path, 1, **changes))
