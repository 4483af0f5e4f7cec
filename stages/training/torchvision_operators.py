"""What PyPI's torchvision needs to be importable beside a CPU build of torch."""


def declare_torchvision_operators() -> None:
    """Declare the two operators that torchvision's import looks for, without an implementation."""
    import torch

    if hasattr(torch.ops.torchvision, "nms"):
        return
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float t) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float t) -> Tensor")
    declare_torchvision_operators.library = library  # the declarations live as long as this object
