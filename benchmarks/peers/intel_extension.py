"""Intel's extension for PyTorch: `python -m benchmarks.peers.intel_extension SETTINGS.json`.

Hugging Face's BertForPreTraining through ipex.fast_bert: TPP kernels for embeddings and layers; fused optimizers and
clipping of Intel's; float32. Padding is left out; lengths are rounded up to 64 tokens. The masked-LM head is restricted
to the masked tokens. It runs in an environment of its own, which environment.py makes.
"""

from __future__ import annotations

import intel_extension_for_pytorch as ipex
import torch
import transformers
from intel_extension_for_pytorch.cpu.tpp import optim

from benchmarks.peers.hugging_face import Parts, TorchTraining, loss_of_masked
from benchmarks.peers.torch_lamb import EXEMPT
from benchmarks.settings import Settings
from benchmarks.worker import serve

_PADDING = -10000.0  # by which fast_bert knows padding; transformers 4.51 adds the lowest float32


def _parts(network: transformers.BertForPreTraining, settings: Settings) -> Parts:
    network.bert.attn_implementation = "eager"  # else the mask is made for torch's fused attention
    network.bert.get_extended_attention_mask = _mask
    network = ipex.fast_bert(network, torch.float, unpad=True)
    network.tie_weights()  # fast_bert makes new embeddings, and leaves the decoder a copy of its own
    if settings.optimizer == "lamb":
        optimizer = optim.Lamb(_groups(network), settings.learning_rate)
    else:
        optimizer = optim.AdamW(_groups(network), settings.learning_rate, correct_bias=False)  # as Google's
    versions = {"intel-extension-for-pytorch": ipex.__version__}
    return Parts(network, optimizer, loss_of_masked, optim.clip_grad_norm_, versions)


def _mask(attention_mask: torch.Tensor, *_: object) -> torch.Tensor:
    """[B, S] -> what is added to scores [B, 1, 1, S]."""
    return (1.0 - attention_mask[:, None, None, :]) * _PADDING


def _groups(network: torch.nn.Module) -> list[dict]:
    named = list(network.named_parameters())
    return [
        {"params": [value for name, value in named if bool(EXEMPT.search(name)) == exempt], "weight_decay": decay}
        for exempt, decay in ((False, 0.01), (True, 0.0))
    ]


if __name__ == "__main__":
    serve(lambda settings: TorchTraining(settings, _parts))
