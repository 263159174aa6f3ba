"""The modules that a network is made of: all of them, and the layers that its forward pass runs one after the other."""

from torch import nn

from rmtbn.measure.tangents import is_altered


def parts(module: nn.Module) -> list[nn.Module]:
    """Return the modules of `module.modules()`: each once, itself first, by generations.

    Without the names that torch's walk builds on the way and throws away: they took as long as pushing tangents through
    an ensemble of small networks.
    """
    found = {id(module): module}
    ahead = [module]
    while ahead:
        for child in ahead.pop()._modules.values():
            if child is not None and id(child) not in found:
                found[id(child)] = child
                if child._modules:
                    ahead.append(child)
    return list(found.values())


def layers(module: nn.Module, prefix: str = "") -> list[tuple[str, nn.Module]]:
    """Flatten sequential containers, nested ones too, into (dotted name, layer) in the order of the forward pass.

    A module that is no `Sequential`, or one with hooks or a forward of its own, is one layer, named "" at the top. A
    layer that is used twice is there twice.
    """
    plain = type(module).forward is nn.Sequential.forward and not is_altered(module)
    children = [(name, child) for name, child in module._modules.items() if child is not None] if plain else []
    found = []
    for name, child in children:
        found += layers(child, f"{prefix}{name}.") if child._modules else [(prefix + name, child)]
    return found or [(prefix.removesuffix("."), module)]
