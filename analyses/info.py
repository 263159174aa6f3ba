"""`rmtbn info`: what this installation is, for a bug report."""

import platform
from importlib import metadata

import click
import torch

from ._options import Common, common, echo_json, example

PACKAGES = (
    "rmtbn",
    "torch",
    "numpy",
    "scipy",
    "sympy",
    "mpmath",
    "matplotlib",
    "seaborn",
    "pandas",
    "pyarrow",
    "click",
)


def information() -> dict[str, str]:
    """Return versions, devices and precision settings."""
    cuda = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        **{package: metadata.version(package) for package in PACKAGES},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "threads": str(torch.get_num_threads()),
        "cuda": str(torch.version.cuda or "none"),
        "devices": ", ".join(["cpu", *cuda]),
        "float32 matmul precision": torch.get_float32_matmul_precision(),
        "tf32 in convolutions": str(torch.backends.cudnn.allow_tf32 and bool(cuda)).lower(),
    }


@click.command(epilog=example("info --json"))
@common
def command(*, options: Common) -> None:
    """Show versions, devices and precision settings."""
    found = information()
    if options.as_json:
        echo_json(found)
    else:
        width = max(map(len, found))
        click.echo("\n".join(f"{name:<{width}}  {value}" for name, value in found.items()))
